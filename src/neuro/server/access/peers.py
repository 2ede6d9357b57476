"""What ends on one server ends on all of them, before that is answered.

Each server keeps in memory whose a token is and what its user holds, so that a request asks no
database. Whoever takes something away tells the others in its own transaction, and answers when
each of them has dropped what it knew and looked again at what streams there. So the next request,
at whichever server, meets what holds; and none of them costs anything for it.

A server that says nothing may be gone, or frozen. None uses what it keeps for longer than
``TRUST_SECONDS`` after it has last read what the others tell, by its own clock, which also runs
while it is frozen: before it goes on it reads that. So nobody is waited for any longer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
from sqlalchemy import BigInteger, Connection, bindparam, literal_column, select, type_coerce

from neuro.domain.errors import Unavailable
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic, clock, record
from neuro.server.fleet.tables import NOW, servers

log = structlog.get_logger("neuro.access")

# The others are read each second, or a server is busy or frozen.
TRUST_SECONDS = 3.0
_LATE_SECONDS = 0.2  # for a request that was let in at the last moment
# A server that nobody has seen for so long is gone: it has lost all its leases.
_GONE = 60_000_000
_NO_TICKET = "-"  # nobody waits
_THERE = select(servers.c.id).where(
    type_coerce(servers.c.seen_at, BigInteger) > literal_column(f"{NOW} - {_GONE}"),
    servers.c.id != bindparam("id"),
)

# What has changed, in words; None: this server fell behind.
Words = list[str] | None
Drop = Callable[[Words], None]
Then = Callable[[Words], Awaitable[None]]


class Telling:
    """One change that the other servers are told of; this one is alone."""

    def record(self, connection: Connection, topic: Topic, words: Iterable[str]) -> None:
        """Tell of it once this transaction is committed."""

    async def heard(self) -> None:
        """After the commit: return when it holds on every server."""


class Peers:
    """The other servers, where there are none."""

    @property
    def is_current(self) -> bool:
        """Whether what is kept in memory holds. Where not, ``catch_up`` first."""
        return True

    async def catch_up(self) -> None:
        """Read what the others told. Raises Unavailable."""

    @contextmanager
    def telling(self, *, waits: bool = True) -> Iterator[Telling]:
        """Around a change, and around waiting until it holds everywhere.

        Without ``waits`` it is told all the same, and ``heard`` returns at once.
        """
        yield Telling()

    def hear(self, topic: Topic, drop: Drop, then: Then) -> None:
        """Have ``drop`` called with what others have changed, and ``then`` awaited after it.

        ``drop`` must be quick and never raise. When both are over it holds on this server.
        """


class _Told(Telling):
    def __init__(self, peers: OtherServers, ticket: str) -> None:
        self._peers = peers
        self.ticket = ticket
        self.topics: set[Topic] = set()
        self.acks: dict[str, set[str]] = {}
        self.news = asyncio.Event()

    def record(self, connection: Connection, topic: Topic, words: Iterable[str]) -> None:
        self.topics.add(topic)
        record(connection, topic, [f"{self.ticket} {word}" for word in words])

    async def heard(self) -> None:
        if self.topics:
            await self._peers.wait_for(self)

    def is_heard_by(self, servers: Iterable[str]) -> bool:
        """Whether all these have done all of it."""
        return all(self.topics <= self.acks.get(server, set()) for server in servers)


class OtherServers(Peers):
    """The other servers of one database. SQLite has none: see ``Peers``."""

    def __init__(
        self, database: Database, changes: Changes, server: str, background: Background
    ) -> None:
        """``server`` is this one's id."""
        self._database = database
        self._changes = changes
        self._server = server
        self._errands = background.errands("what other servers have changed")
        self._told: dict[str, _Told] = {}
        self._catching_up = asyncio.Lock()
        changes.listen(Topic.HEARD, self._note)

    @property
    def is_current(self) -> bool:
        return clock() - self._changes.looked_at < TRUST_SECONDS

    async def catch_up(self) -> None:
        async with self._catching_up:
            if self.is_current:
                return
            try:
                await self._changes.look()
            except Unavailable:
                if not self._changes.is_alone():
                    raise

    @contextmanager
    def telling(self, *, waits: bool = True) -> Iterator[Telling]:
        ticket = secrets.token_hex(8) if waits else _NO_TICKET
        told = self._told[ticket] = _Told(self, ticket)
        try:
            yield told
        finally:
            self._told.pop(ticket, None)

    async def wait_for(self, told: _Told) -> None:
        """Return when all others have done what they were told, or trust in nothing else."""
        self._changes.ring()
        if told.ticket == _NO_TICKET:
            return
        others: list[str] = []
        try:
            async with asyncio.timeout(TRUST_SECONDS + _LATE_SECONDS):
                others = await self._there()
                while not told.is_heard_by(others):
                    await told.news.wait()
                    told.news.clear()
        except TimeoutError:
            silent = [server for server in others if not told.is_heard_by([server])]
            log.info("other servers did not say that they have heard of a change", servers=silent)

    async def _there(self) -> list[str]:
        while True:
            try:
                found = await self._database.read(
                    lambda c: c.execute(_THERE, {"id": self._server}).scalars().all()
                )
                return list(found)
            except Unavailable:  # Logged where it is met.
                await asyncio.sleep(TRUST_SECONDS)

    def _note(self, keys: tuple[str, ...] | None) -> None:
        for key in keys or ():
            ticket, topic, server = key.split(" ")
            told = self._told.get(ticket)
            if told is not None:
                told.acks.setdefault(server, set()).add(topic)
                told.news.set()

    def hear(self, topic: Topic, drop: Drop, then: Then) -> None:
        self._changes.listen(topic, partial(self._hear, topic, drop, then))

    def _hear(self, topic: Topic, drop: Drop, then: Then, keys: tuple[str, ...] | None) -> None:
        parts = [key.split(" ", 1) for key in keys or ()]
        words = None if keys is None else [word for _, word in parts]
        drop(words)
        self._errands.begin(self._go_on(topic, then, words, {it for it, _ in parts} - {_NO_TICKET}))

    async def _go_on(self, topic: Topic, then: Then, words: Words, tickets: set[str]) -> None:
        await then(words)
        heard = [f"{ticket} {topic} {self._server}" for ticket in sorted(tickets)]
        if heard:
            await self._database.write(lambda c: record(c, Topic.HEARD, heard))
            self._changes.ring()
