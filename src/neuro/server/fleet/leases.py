"""Who does what alone: leases, which servers of one database hold for as long as they live.

A lease is a row with a holder, an expiry and a number that counts up whenever it is taken. Its
holder renews all of its leases each second, in one statement; who waits for one looks when the
expiry that it has read has come. All times are the database's own: clocks of machines may differ.

A holder that was frozen and wakes up does no harm:

* ``Lease.check`` in a transaction raises ``LeaseLost`` where another has taken the lease, and keeps
  others from taking it until that transaction is over;
* ``Lease.is_held`` says by this machine's monotonic clock whether nobody can have taken it yet: to
  be asked before what no transaction fences.

A renewal that comes late keeps a lease that nobody took meanwhile, with its number. SQLite has one
server, which holds all leases from the beginning, without a task or a query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, text

from neuro.domain.errors import PlatformError, Unavailable
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic, clock, record
from neuro.server.fleet.tables import NOW

T = TypeVar("T")

log = structlog.get_logger("neuro.fleet")

LIFE_SECONDS = 2.0  # of a lease that is not renewed
RENEW_SECONDS = 1.0
# A holder stops so long before its lease ends by its own clock, as what it began may take a while.
MARGIN_SECONDS = 0.3
# A server that was not seen for so long is not there.
ALIVE_SECONDS = 4.0
RETRY_SECONDS = 1.0
_MICROSECONDS = 1_000_000
_LIFE = int(LIFE_SECONDS * _MICROSECONDS)
# PostgreSQL ends a fenced transaction that is idle for so long: its server is frozen, and would
# keep others from taking the lease.
_FROZEN_MILLISECONDS = int(LIFE_SECONDS * 1000)

_CHECK = text(
    f"SELECT set_config('idle_in_transaction_session_timeout', '{_FROZEN_MILLISECONDS}', true)"
    " FROM leases WHERE name = :name AND number = :number FOR KEY SHARE"
)
# A change of the expiry passes by who checks (KEY SHARE); who takes it waits for them.
_RENEW = text(
    f"WITH seen AS (UPDATE servers SET seen_at = {NOW} WHERE id = :server),"
    f" renewed AS (UPDATE leases SET expires_at = {NOW} + {_LIFE}"
    " FROM unnest(CAST(:names AS TEXT[]), CAST(:numbers AS BIGINT[])) AS held (name, number)"
    " WHERE leases.name = held.name AND leases.number = held.number RETURNING leases.name)"
    " SELECT renewed.name, (SELECT count(*) FROM servers WHERE id <> :server"
    f" AND seen_at > {NOW} - {int(ALIVE_SECONDS * _MICROSECONDS)}) AS others"
    " FROM (SELECT 1) AS one LEFT JOIN renewed ON true"
)
_LOOK = text(
    f"SELECT name, holder, expires_at - {NOW} AS rest FROM leases WHERE name = ANY(:names)"
)
_OTHERS = text(
    "SELECT name FROM leases WHERE starts_with(name, :prefix)"
    f" AND holder NOT IN ('', :server) AND expires_at > {NOW}"
)
_ADD = text(
    "INSERT INTO leases (name, holder, number, expires_at) VALUES (:name, '', 0, 0)"
    " ON CONFLICT (name) DO NOTHING"
)
# FOR UPDATE waits for the transactions that the lease's holder fences with it.
_TAKE = text(
    "WITH free AS (SELECT name FROM leases WHERE name = :name"
    f" AND (holder IN ('', :holder) OR expires_at <= {NOW}) FOR UPDATE)"
    f" UPDATE leases SET holder = :holder, number = number + 1, expires_at = {NOW} + {_LIFE}"
    " FROM free WHERE leases.name = free.name RETURNING leases.number"
)
_RELEASE = text(
    "UPDATE leases SET holder = '', expires_at = 0 WHERE name = :name AND number = :number"
)


class LeaseLost(PlatformError):
    """Another server has taken over what this one was about to do: nothing was done."""

    code = "unavailable"
    status = 503


class Lease:
    """One that this server has taken. ``number`` is higher than that of every earlier holder."""

    def __init__(self, name: str, number: int, held_until: float | None) -> None:
        """``held_until`` is a time of ``clock``; None: nobody else can ever take it."""
        self.name = name
        self.number = number
        self._until = held_until
        self._is_lost = False

    @property
    def is_held(self) -> bool:
        """Whether this server holds it for certain: also a server that was frozen knows at once.

        False does not say that it is lost: the next renewal may find that nobody has taken it.
        """
        return not self._is_lost and (self._until is None or clock() < self._until)

    @property
    def is_lost(self) -> bool:
        """Whether another server has taken it, or this one has given it back: it stays so."""
        return self._is_lost

    def check(self, connection: Connection) -> None:
        """Fence a transaction: nobody takes the lease before its end. Raises LeaseLost.

        One more statement on PostgreSQL; free on SQLite.
        """
        if connection.dialect.name == "sqlite":
            if self._is_lost:
                raise self._lost()
            return
        row = connection.execute(_CHECK, {"name": self.name, "number": self.number}).one_or_none()
        if row is None:
            raise self._lost()

    def renewed(self, until: float) -> None:
        """Nobody can take it before this time of ``clock``."""
        self._until = until

    def lose(self) -> None:
        """It is another's now."""
        self._is_lost = True

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"Another server has taken over '{self.name}' from this one: nothing was changed."
        )


Taken = Callable[[Lease], Awaitable[None]]
Lost = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class _Wish:
    """A lease that this server wants for as long as it runs. One of ``lease`` and waiting."""

    name: str
    holder: str
    taken: Taken
    lost: Lost
    lease: Lease | None = None
    # What ``taken`` and ``lost`` do, one after the other.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_ending: bool = False

    @property
    def is_open(self) -> bool:
        return self.lease is None and not self.is_ending


class Leases:
    """The leases of one server."""

    def __init__(
        self,
        database: Database,
        server_id: str,
        background: Background,
        changes: Changes | None = None,
    ) -> None:
        """``changes`` tells of leases that others give back, and wakes others for its own."""
        self._database = database
        self._server = server_id
        self._background = background
        self._changes = changes
        self._wishes: dict[str, _Wish] = {}
        self._others = 0
        self._wake = asyncio.Event()
        self._kept: list[Kept] = []
        self._errands = background.errands("change of leases")
        # Their own threads: a long queue at the database must not cost a lease.
        self._renewing = ThreadPoolExecutor(1, thread_name_prefix="lease-renew")
        self._seeking = ThreadPoolExecutor(1, thread_name_prefix="lease-seek")

    @property
    def others(self) -> int:
        """How many other servers were alive at the last renewal."""
        return self._others

    async def start(self) -> None:
        """Begin to renew what is held, and to look for what is wanted."""
        if self._database.is_sqlite:
            return
        if self._changes is not None:
            self._changes.listen(Topic.LEASE, lambda keys: self._wake.set())
        await self._renew()
        self._kept.append(self._background.keep("renewal of leases", self._renew_on))
        self._kept.append(self._background.keep("search for leases", self._seek_on))

    async def keep(self, name: str, taken: Taken, lost: Lost) -> None:
        """Want this lease from now on; ``taken`` is over at the return where it is free now.

        Where it is not, ``taken`` is called once it is, and ``lost`` when another server has taken
        it from this one; after that it is wanted again. The two never run at the same time. Where
        ``taken`` raises, ``lost`` is called and the lease is given back, to be sought again later.
        Raises Unavailable, and what ``taken`` raises the first time on SQLite.
        """
        wish = _Wish(name, self._server, taken, lost)
        if self._database.is_sqlite:
            self._wishes[name] = wish
            wish.lease = Lease(name, 1, None)
            await taken(wish.lease)
            return
        lease = await self._in(self._seeking, lambda c: _take(c, name, wish.holder))
        self._wishes[name] = wish
        if lease is None:
            self._wake.set()
            return
        wish.lease = lease
        await self._begin(wish, lease)

    def adopt(self, lease: Lease, holder: str, lost: Lost) -> None:
        """Keep one that was taken before there was an event loop, by this name of the holder."""
        wish = _Wish(lease.name, holder, _nothing_with, lost)
        wish.lease = lease
        self._wishes[lease.name] = wish

    async def give_up(self, name: str) -> None:
        """Want it no more; ``lost`` is called where it was held. Another server takes it at once.

        Raises Unavailable where the database does not answer; then it runs out by itself.
        """
        wish = self._wishes.pop(name, None)
        if wish is not None:
            await self._give_back([wish])

    async def holder_of(self, name: str) -> str | None:
        """The id of the server that holds a lease now; None where it has run out, and on SQLite.

        Changes of holders are told under ``Topic.LEASE``. Raises Unavailable.
        """
        if self._database.is_sqlite:
            return None
        found = await self._database.read(lambda c: _look(c, [name]))
        holder, rest = found.get(name, ("", 0.0))
        return holder if holder and rest > 0 else None

    async def held_by_others(self, prefix: str) -> set[str]:
        """What follows ``prefix`` in the names of leases that other servers hold now.

        Empty on SQLite. Raises Unavailable.
        """
        if self._database.is_sqlite:
            return set()
        parameters = {"prefix": prefix, "server": self._server}
        rows = await self._database.read(lambda c: c.execute(_OTHERS, parameters).all())
        return {row.name.removeprefix(prefix) for row in rows}

    def held(self, name: str) -> Lease | None:
        """The lease of this name where this server has it."""
        wish = self._wishes.get(name)
        return None if wish is None else wish.lease

    async def close(self) -> None:
        """Stop everything that leases of this server do, and give them to whoever waits."""
        for kept in self._kept:
            await kept.stop()
        await self._errands.stop()
        wishes = list(reversed(self._wishes.values()))
        self._wishes.clear()
        try:
            await self._give_back(wishes)
        except Unavailable as error:  # They run out by themselves.
            log.warning("cannot give back the leases of this server", error=error.message)
        self._renewing.shutdown()
        self._seeking.shutdown()

    # Renewing.

    async def _renew_on(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._renew()
            except Unavailable:  # Logged where it is met. What nobody takes meanwhile is kept.
                continue

    async def _renew(self) -> None:
        held = [wish.lease for wish in self._wishes.values() if wish.lease is not None]
        parameters = {
            "server": self._server,
            "names": [lease.name for lease in held],
            "numbers": [lease.number for lease in held],
        }
        until = clock() + LIFE_SECONDS - MARGIN_SECONDS
        rows = await self._in(self._renewing, lambda c: c.execute(_RENEW, parameters).all())
        self._others = rows[0].others
        renewed = {row.name for row in rows}
        for lease in held:
            if lease.name in renewed:
                lease.renewed(until)
            elif not lease.is_lost:
                self._note_loss(lease)

    def _note_loss(self, lease: Lease) -> None:
        log.warning("another server has taken over", what=lease.name)
        lease.lose()
        wish = self._wishes.get(lease.name)
        if wish is not None and wish.lease is lease:
            wish.lease = None
            wish.is_ending = True
            self._errands.begin(self._end(wish))

    # Seeking.

    async def _seek_on(self) -> None:
        while True:
            try:
                rest = await self._seek()
            except Unavailable:
                rest = RETRY_SECONDS
            try:
                async with asyncio.timeout(rest):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def _seek(self) -> float | None:
        """Take what is free; returns the seconds until the next of the others may be."""
        wanted = {wish.name: wish for wish in self._wishes.values() if wish.is_open}
        if not wanted:
            return None
        found = await self._in(self._seeking, lambda c: _look(c, wanted))
        rests = []
        for name, wish in wanted.items():
            holder, rest = found.get(name, ("", 0.0))
            if rest > 0 and holder not in ("", wish.holder):
                rests.append(rest)
                continue
            take_it = partial(_take, name=name, holder=wish.holder)
            lease = await self._in(self._seeking, take_it)
            if lease is None:
                rests.append(RENEW_SECONDS)  # Somebody else was quicker.
            elif self._wishes.get(name) is not wish:
                await self._in(self._seeking, partial(_release, held=[lease]))
            else:
                wish.lease = lease
                self._errands.begin(self._begin(wish, lease))
                self._ring()
        # A moment more, so that the time has come for certain.
        return min(rests) + 0.005 if rests else None

    # Changes.

    async def _begin(self, wish: _Wish, lease: Lease) -> None:
        async with wish.turn:
            if lease.is_lost:
                return
            log.info("this server takes over", what=lease.name, number=lease.number)
            try:
                await wish.taken(lease)
            except Exception:
                log.exception("cannot take over", what=lease.name)
                if wish.lease is lease:
                    wish.lease, wish.is_ending = None, True
                    self._errands.begin(self._fail(wish, lease))

    async def _fail(self, wish: _Wish, lease: Lease) -> None:
        lease.lose()
        async with wish.turn:
            await self._stop(wish)
        with suppress(Unavailable):  # It runs out by itself.
            await self._in(self._seeking, lambda c: _release(c, [lease]))
        await asyncio.sleep(RETRY_SECONDS)
        self._want_again(wish)

    async def _end(self, wish: _Wish) -> None:
        async with wish.turn:
            await self._stop(wish)
        self._want_again(wish)

    async def _stop(self, wish: _Wish) -> None:
        try:
            await wish.lost()
        except Exception:
            log.exception("cannot stop what another server may take over", what=wish.name)

    def _want_again(self, wish: _Wish) -> None:
        wish.is_ending = False
        self._wake.set()

    async def _give_back(self, wishes: Iterable[_Wish]) -> None:
        held = []
        for wish in wishes:
            lease, wish.lease, wish.is_ending = wish.lease, None, True
            if lease is not None:
                held.append(lease)
                async with wish.turn:
                    await self._stop(wish)
                lease.lose()
        if held and not self._database.is_sqlite:
            await self._in(self._seeking, lambda c: _release(c, held))
            self._ring()

    def _ring(self) -> None:
        if self._changes is not None:
            self._changes.ring()

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, self._database.write_now, work)


def take(connection: Connection, name: str, holder: str) -> Lease | None:
    """Take a lease where it is free, or this holder's already. Before there is an event loop."""
    return _take(connection, name, holder)


def _look(connection: Connection, names: Collection[str]) -> dict[str, tuple[str, float]]:
    """The holder of each lease and the seconds that it has left."""
    rows = connection.execute(_LOOK, {"names": list(names)})
    return {row.name: (row.holder, row.rest / _MICROSECONDS) for row in rows}


def _take(connection: Connection, name: str, holder: str) -> Lease | None:
    until = clock() + LIFE_SECONDS - MARGIN_SECONDS
    connection.execute(_ADD, {"name": name})
    number = connection.execute(_TAKE, {"name": name, "holder": holder}).scalar_one_or_none()
    if number is None:
        return None
    record(connection, Topic.LEASE, [name])
    return Lease(name, int(number), until)


def _release(connection: Connection, held: Iterable[Lease]) -> None:
    names: list[Any] = []
    for lease in held:
        connection.execute(_RELEASE, {"name": lease.name, "number": lease.number})
        names.append(lease.name)
    record(connection, Topic.LEASE, names)


async def _nothing_with(_: Lease) -> None:
    pass
