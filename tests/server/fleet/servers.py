"""Servers of one database, as far as the room of the fleet is concerned, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes
from neuro.server.fleet.leases import Lease, Leases

PATIENCE = 60.0
# For what takes three seconds at most, on a machine that is very busy.
SOON = 10.0


@dataclass
class Member:
    """One server: what it holds and what it was told, in order."""

    id: str
    database: Database
    background: Background
    changes: Changes
    leases: Leases
    events: list[str] = field(default_factory=list)
    lease: Lease | None = None

    async def seek(self, name: str) -> None:
        async def taken(lease: Lease) -> None:
            self.lease = lease
            self.events.append(f"taken {lease.name} {lease.number}")

        async def lost() -> None:
            self.lease = None
            self.events.append(f"lost {name}")

        await self.leases.keep(name, taken, lost)

    async def freeze(self) -> None:
        """Do nothing unasked any more: no renewals, no looks."""
        await self.background.close()


@asynccontextmanager
async def member(url: str, server: str) -> AsyncIterator[Member]:
    """A server that is closed in order at the end."""
    database = Database(url)
    background = Background()
    changes = Changes(database, server, background)
    leases = Leases(database, server, background, changes)
    await changes.start()
    await leases.start()
    try:
        yield Member(server, database, background, changes, leases)
    finally:
        await leases.close()
        await changes.close()
        await background.close()
        database.close()


async def until(holds: Callable[[], object]) -> None:
    """Wait until it is so. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)
