"""This server among the others of its database, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from neuro.domain.errors import Unavailable
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes
from neuro.server.fleet.leases import Leases
from neuro.server.fleet.registry import Servers, claim, server_id

log = structlog.get_logger("neuro.fleet")


@dataclass(frozen=True)
class Fleet:
    """What the parts of one server need to work beside other servers."""

    id: str
    changes: Changes
    leases: Leases
    servers: Servers
    background: Background


async def join_fleet(
    stack: AsyncExitStack, database: Database, folder: Path, end: Callable[[], None]
) -> Fleet:
    """Be one of the servers of a database that has its tables, until the stack is closed.

    ``end`` ends this server in order: it is called when a copy of the data folder has become this
    server while this one was frozen. Raises Conflict where such a one lives, Unavailable.
    """
    server = server_id(folder)
    claimed = await asyncio.to_thread(claim, database, folder, server)
    # Its own: leases are renewed until everything else of the server is closed.
    background = Background(end)
    stack.push_async_callback(background.close)
    changes = Changes(database, server, background)
    stack.push_async_callback(changes.close)
    leases = Leases(database, server, background, changes)
    changes.is_alone = lambda: leases.is_alone
    stack.push_async_callback(leases.close)
    servers = Servers(database, server, changes)
    stack.push_async_callback(_leave, servers)

    if claimed is not None:
        lease, holder = claimed

        async def lost() -> None:
            # A server that gives it back itself ends already, or begins again with new settings.
            if lease.is_lost:
                log.error("another server with a copy of this data folder has taken its place")
                end()

        leases.adopt(lease, holder, lost)
    await changes.start()
    await leases.start()
    return Fleet(server, changes, leases, servers, background)


async def _leave(servers: Servers) -> None:
    try:
        await servers.leave()
    except Unavailable as error:  # The others find out by themselves.
        log.warning("cannot tell the other servers that this one ends", error=error.message)
