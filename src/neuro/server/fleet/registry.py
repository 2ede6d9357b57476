"""The servers of one database: each with an id and a data folder of its own, and an address.

The id is kept in the data folder. A copy of the folder has the same one, and would be the same
server: it is refused for as long as the original lives, by a lease that names the folder's place.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text, update

from neuro.domain.errors import Conflict
from neuro.server import durable
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic, record
from neuro.server.fleet.lease_rows import ALIVE_SECONDS
from neuro.server.fleet.leases import Lease, take
from neuro.server.fleet.tables import NOW, servers

_ID = re.compile("[0-9a-f]{32}")
# A server that was killed holds its own lease for some seconds more.
PATIENCE_SECONDS = 5.0
PAUSE_SECONDS = 0.1
# A server that was not seen for so long is forgotten.
FORGET_SECONDS = 30 * 86_400
# One that has left was last seen so long ago: it does not live, and is not forgotten.
LEFT_SECONDS = 3600
_MICROSECONDS = 1_000_000

_ENTER = text(
    "INSERT INTO servers (id, name, url, started_at, seen_at)"
    f" VALUES (:id, :name, :url, :started_at, {NOW}) ON CONFLICT (id) DO UPDATE SET"
    " name = excluded.name, url = excluded.url, started_at = excluded.started_at,"
    " seen_at = excluded.seen_at"
)
_ALL = text(
    f"SELECT id, name, url, offer, {NOW} - seen_at < :alive AS is_alive FROM servers"
    " ORDER BY started_at, id"
)
_ALIVE = int(ALIVE_SECONDS * _MICROSECONDS)


@dataclass(frozen=True)
class ServerRecord:
    """One server: where others reach it, what it offers (packed JSON), whether it lives."""

    id: str
    name: str | None
    url: str
    is_alive: bool
    offer: bytes | None = None


def server_id(folder: Path) -> str:
    """The id of the server of this data folder; made at its first start.

    Raises OSError, and Conflict where the file that keeps it is empty or damaged.
    """
    path = folder / "server"
    if not path.exists():
        durable.write(path, secrets.token_hex(16))
    found = path.read_text("ascii", "replace").strip()
    if not _ID.fullmatch(found):
        raise Conflict(
            f"The file {path} is empty or damaged, and has to have the id of this server: put it"
            " back from a back-up, or delete it; the server then makes a new one."
        )
    return found


def claim(
    database: Database, folder: Path, server: str, patience: float = PATIENCE_SECONDS
) -> tuple[Lease, str] | None:
    """Be this server, and no other; returns the lease with the name of its holder.

    Blocks up to ``patience`` seconds. None on SQLite, whose file is the folder's own. Raises
    Conflict where a server with a copy of this data folder lives, Unavailable.
    """
    if database.is_sqlite:
        return None
    holder = f"{server}@{_place(folder)}"
    end = time.monotonic() + patience
    while True:
        lease = database.write_now(lambda c: take(c, f"server:{server}", holder))
        if lease is not None:
            return lease, holder
        if time.monotonic() > end:
            raise Conflict(
                "Another server works on this database with a copy of this data folder, or with the"
                " folder that this one is a copy of: stop it first. To try a copy of a data folder,"
                " restore a copy of the database too, and name it with --database. Another server"
                " of the same installation begins with an empty data folder that has the"
                " keys/tokens.key of this one."
            )
        time.sleep(PAUSE_SECONDS)


def _place(folder: Path) -> str:
    """What tells a folder from a copy of it: the same again after a restart of the server."""
    found = folder.stat()
    place = f"{socket.gethostname()} {found.st_dev} {found.st_ino}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def _read(connection: Connection) -> list[ServerRecord]:
    rows = connection.execute(_ALL, {"alive": _ALIVE})
    return [ServerRecord(row.id, row.name, row.url, row.is_alive, row.offer) for row in rows]


class Servers:
    """All servers of the database, and this one among them."""

    def __init__(self, database: Database, server: str, changes: Changes) -> None:
        self.id = server
        self._database = database
        self._changes = changes
        self._listeners: list[Callable[[], None]] = []
        changes.listen(Topic.SERVER, lambda keys: self._changed())

    def listen(self, listener: Callable[[], None]) -> None:
        """Call it when a server comes, goes in order, or offers something else."""
        self._listeners.append(listener)

    async def enter(self, name: str | None, url: str, started_at: datetime) -> None:
        """Say where this server is. Raises Unavailable."""
        started = int(started_at.timestamp() * _MICROSECONDS)
        values = {"id": self.id, "name": name, "url": url, "started_at": started}

        def write(connection: Connection) -> None:
            connection.execute(_ENTER, values)
            connection.execute(
                text(f"DELETE FROM servers WHERE seen_at < {NOW} - :age"),
                {"age": FORGET_SECONDS * _MICROSECONDS},
            )
            record(connection, Topic.SERVER, [self.id])

        await self._write(write)

    async def publish(self, offer: bytes) -> None:
        """Say what this server's engines have, after ``enter``. Raises Unavailable."""

        def write(connection: Connection) -> None:
            connection.execute(update(servers).where(servers.c.id == self.id).values(offer=offer))
            record(connection, Topic.SERVER, [self.id])

        await self._write(write)

    async def leave(self) -> None:
        """This server ends: the others need not wait to find that out. Raises Unavailable."""

        def write(connection: Connection) -> None:
            connection.execute(
                text(f"UPDATE servers SET seen_at = {NOW} - :age WHERE id = :id"),
                {"id": self.id, "age": LEFT_SECONDS * _MICROSECONDS},
            )
            record(connection, Topic.SERVER, [self.id])

        await self._write(write)

    async def all(self) -> list[ServerRecord]:
        """Every server, oldest first, as it is now; none on SQLite. Raises Unavailable."""
        return [] if self._database.is_sqlite else await self._database.read(_read)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    async def _write(self, change: Callable[[Connection], None]) -> None:
        if self._database.is_sqlite:
            return
        await self._database.write(change)
        self._changes.ring()
