"""What servers of one database tell each other: one feed, written in the transaction it tells of.

``record`` adds what has changed to an outbox, in the caller's own transaction: what was not
committed is not told, and what was cannot be lost. After the commit ``Changes.ring`` wakes the
other servers. They read the outbox and tell their listeners *which* things to read anew.

A reader keeps the snapshot of the database in which it has read last, and reads the rows that this
snapshot did not show. So a transaction that commits late is not passed over, though its rows were
numbered before others that have long been read, and none is told twice.

``NOTIFY`` takes a lock of the whole database at its commit, so it is a transaction of its own, at
most one at a time. A server that cannot be woken (its connection is pgbouncer's, or just broken)
looks each second; so do the others, in case who changed something did not live to tell.

SQLite has one server: nothing is written there, and nobody has to be told.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, text

from neuro.domain.errors import Unavailable
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database, limits_of_silence
from neuro.server.fleet.tables import NOW

if TYPE_CHECKING:
    from psycopg import AsyncConnection

log = structlog.get_logger("neuro.fleet")

# Keys of what has changed; None: this server fell behind, and must look at everything.
Listener = Callable[[tuple[str, ...] | None], None]

LOOK_SECONDS = 1.0
# A row stays for so long after every reader can see it; one who reads less often looks at all.
KEEP_SECONDS = 120.0
SWEEP_SECONDS = 30.0
# A reader that is further behind than this looks at everything instead, which is less work.
MOST = 20_000
# Beyond this the outbox is emptied, and all readers are told to look at everything.
MOST_KEPT = 500_000
# Between two calls of NOTIFY, and two looks: what comes meanwhile is told together.
GATHER_SECONDS = 0.01
RETRY_SECONDS = 1.0
_CHANNEL = "neuro"
# Of rows that tell that others are gone.
_ALL = "*"
_SERVER = "neuro_server"

_INSERT = text(
    "INSERT INTO changes (xid, server, topic, keys, at)"
    f" VALUES (CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT), :server, :topic, :keys, {NOW})"
)
# One statement is one snapshot: the rows are those that it shows, and the last one did not.
_READ = text(
    "SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot,"
    f" {NOW} AS now, c.topic, c.keys"
    " FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM changes WHERE server <> :server"
    " AND (xid >= :unseen OR xid = ANY(:running)) ORDER BY sequence LIMIT :most) AS c ON true"
    " ORDER BY c.sequence"
)
_SNAPSHOT = text(f"SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot, {NOW} AS now")
_SWEEP = text(
    "DELETE FROM changes WHERE sequence IN (SELECT sequence FROM changes WHERE xid < :unseen"
    " AND NOT xid = ANY(:running) FOR UPDATE SKIP LOCKED)"
)


class Topic(StrEnum):
    """What a change is of; beside it the keys that are told with it."""

    SERVER = "server"  # id
    LEASE = "lease"  # name
    JOB = "job"  # id
    INTENT = "intent"  # id of its job
    TOKENS = "tokens"  # ticket, user, id of the token
    GRANTS = "grants"  # ticket, number, user
    HEARD = "heard"  # ticket, topic, id of the server that has heard
    SCHEDULE = "schedule"  # id, or its owner
    BAKE = "bake"  # id of one that is gone
    ATTEMPT = "attempt"  # id of its bake, id
    TASK = "task"  # id of its bake, id of its attempt, id in the YAML
    TOUCH = "touch"  # a sign of life of an attempt: id of its bake, id
    DRIVER = "driver"  # id of its attempt
    PRESETS = "presets"  # all of them


def record(connection: Connection, topic: Topic, keys: Iterable[str]) -> None:
    """Tell the other servers that these things have changed, once the transaction is committed.

    One more statement on PostgreSQL, none on SQLite. Call ``Changes.ring`` after the commit.
    """
    if connection.dialect.name == "sqlite":
        return
    server = connection.get_execution_options().get(_SERVER, "")
    connection.execute(
        _INSERT, {"server": server, "topic": topic.value, "keys": json.dumps(list(keys))}
    )


@dataclass(frozen=True)
class Snapshot:
    """What a reader has seen: every transaction before ``unseen`` except the ``running`` ones."""

    unseen: int
    running: tuple[int, ...]
    at: int

    @classmethod
    def of(cls, snapshot: str, at: int) -> Snapshot:
        """Of PostgreSQL's own text, ``xmin:xmax:running``; ``at`` is when, in microseconds."""
        _, unseen, running = snapshot.split(":")
        return cls(int(unseen), tuple(int(xid) for xid in running.split(",") if xid), at)

    @property
    def bounds(self) -> dict[str, Any]:
        """As parameters of the statements above."""
        return {"unseen": self.unseen, "running": list(self.running)}


class Changes:
    """Reads what the other servers record, and wakes them for what this one does."""

    def __init__(self, database: Database, server_id: str, background: Background) -> None:
        """``server_id`` marks what this server records: it has told itself already.

        ``is_alone`` may be set to say whether no other server is there to be woken.
        """
        self.is_alone: Callable[[], bool] = lambda: False
        # A time of ``clock``: all that was committed before it has been told.
        self.looked_at = 0.0
        self._database = database
        self._server = server_id
        self._background = background
        self._listeners: dict[str, list[Listener]] = {}
        self._seen: Snapshot | None = None
        self._news = asyncio.Event()
        self._rings = asyncio.Event()
        self._kept: list[Kept] = []
        self._looking = asyncio.Lock()
        if not database.is_sqlite:
            database.engine.update_execution_options(**{_SERVER: server_id})

    def listen(self, topic: Topic, listener: Listener) -> None:
        """Call it on the event loop with the keys that other servers have recorded, in order.

        It must be quick and never raise. With None it must look at everything of its topic.
        Whoever reads a state and then follows it listens first: what is told of is committed.
        """
        self._listeners.setdefault(topic, []).append(listener)

    def ring(self) -> None:
        """Wake the other servers, after a commit. Costs nothing where there are none."""
        if self._kept and not self.is_alone():
            self._rings.set()

    async def start(self) -> None:
        """Tell of all that is committed from now on. Raises Unavailable."""
        if self._database.is_sqlite:
            return
        began = clock()
        self._seen = await self._database.read(_snapshot)
        self.looked_at = began
        for name, work in (
            ("feed of changes", self._read_on),
            ("bell of changes", self._ring_on),
            ("ear for changes", self._hear_on),
            ("sweep of changes", self._sweep_on),
        ):
            self._kept.append(self._background.keep(name, work))

    async def close(self) -> None:
        """Stop."""
        for kept in self._kept:
            await kept.stop()
        self._kept.clear()

    async def look(self) -> None:
        """Read what there is now, and tell of it. Raises Unavailable."""
        if self._seen is None:
            return
        async with self._looking:
            seen, began = self._seen, clock()
            parameters = {"server": self._server, "most": MOST + 1, **seen.bounds}
            rows = await self._database.read(lambda c: c.execute(_READ, parameters).all())
            self._seen = now = Snapshot.of(rows[0].snapshot, rows[0].now)
            news = [row for row in rows if row.topic is not None]
            is_late = now.at - seen.at > KEEP_SECONDS * 1e6
            if is_late or len(news) > MOST or any(row.topic == _ALL for row in news):
                log.warning("this server fell behind the others, and looks at everything")
                for topic in self._listeners:
                    self._tell(topic, None)
            else:
                for topic, keys in _by_topic(news):
                    self._tell(topic, keys)
            self.looked_at = began

    def _tell(self, topic: str, keys: tuple[str, ...] | None) -> None:
        for listener in self._listeners.get(topic, ()):
            try:
                listener(keys)
            except Exception:
                # One that fails keeps no other from its news.
                log.exception("a listener to changes failed", topic=topic)

    async def _read_on(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.look()
            except Unavailable:  # Logged where it is met.
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(GATHER_SECONDS)

    async def _ring_on(self) -> None:
        """Send NOTIFY for what was rung for since the last one."""
        from psycopg import Error

        while True:
            await self._rings.wait()
            try:
                async with await self._connect() as connection:
                    while True:
                        await self._rings.wait()
                        self._rings.clear()
                        await connection.execute(f"NOTIFY {_CHANNEL}, '{self._server}'")
                        await asyncio.sleep(GATHER_SECONDS)
            except (Error, OSError) as error:
                log.warning(
                    "cannot wake the other servers, which look by themselves", error=str(error)
                )
                await asyncio.sleep(RETRY_SECONDS)

    async def _hear_on(self) -> None:
        """Listen for the NOTIFY of others."""
        from psycopg import Error

        while True:
            try:
                async with await self._connect() as connection:
                    is_direct = await _is_direct(connection)
                    if is_direct:
                        await connection.execute(f"LISTEN {_CHANNEL}")
                        self._news.set()
                        async for told in connection.notifies():
                            if told.payload != self._server:
                                self._news.set()
                if not is_direct:
                    log.info("the database is behind a pooler: changes are looked for each second")
                    await asyncio.Event().wait()
            except (Error, OSError) as error:
                log.warning("cannot be woken by the other servers", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self) -> AsyncConnection[Any]:
        from psycopg import AsyncConnection

        url = self._database.engine.url.set(drivername="postgresql")
        return await AsyncConnection.connect(
            url.render_as_string(hide_password=False),
            autocommit=True,
            prepare_threshold=None,
            **limits_of_silence(url),
        )

    async def _sweep_on(self) -> None:
        """Remove what everybody has had the time to read."""
        past: list[Snapshot] = []
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                now = await self._database.read(_snapshot)
                past.append(now)
                while len(past) > 1 and now.at - past[1].at >= KEEP_SECONDS * 1e6:
                    del past[0]
                if now.at - past[0].at >= KEEP_SECONDS * 1e6:
                    await self._database.write(partial(sweep, seen=past[0]))
            except Unavailable:
                continue


def clock() -> float:
    """Seconds that also count while this process, or the whole machine, is frozen."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sweep(connection: Connection, seen: Snapshot, most: int = MOST_KEPT) -> None:
    """Remove the rows that a snapshot showed; all rows, told as such, where there are too many."""
    connection.execute(_SWEEP, seen.bounds)
    if connection.execute(text("SELECT count(*) FROM changes")).scalar_one() > most:
        # Nobody's, so that whoever writes it reads it too.
        connection.execute(_INSERT, {"server": "", "topic": _ALL, "keys": "[]"})
        connection.execute(text("DELETE FROM changes WHERE topic <> :all"), {"all": _ALL})


def _snapshot(connection: Connection) -> Snapshot:
    row = connection.execute(_SNAPSHOT).one()
    return Snapshot.of(row.snapshot, row.now)


def _by_topic(rows: Iterable[Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Keys that follow each other in one topic, each once."""
    found: list[tuple[str, dict[str, None]]] = []
    for row in rows:
        if not found or found[-1][0] != row.topic:
            found.append((row.topic, {}))
        found[-1][1].update(dict.fromkeys(json.loads(row.keys)))
    return [(topic, tuple(keys)) for topic, keys in found]


async def _is_direct(connection: AsyncConnection[Any]) -> bool:
    """Whether this is a process of PostgreSQL's own, and not one that a pooler lends out."""
    cursor = await connection.execute("SELECT pg_backend_pid()")
    row = await cursor.fetchone()
    return row is not None and row[0] == connection.info.backend_pid
