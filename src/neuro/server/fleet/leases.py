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
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from neuro.domain.errors import PlatformError, Unavailable
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet import lease_rows as rows
from neuro.server.fleet.changes import Changes, Topic, clock
from neuro.server.fleet.lease_rows import LIFE_SECONDS

T = TypeVar("T")

log = structlog.get_logger("neuro.fleet")

# Others may have come since a renewal that is longer ago.
ALONE_SECONDS = 60.0
RENEW_SECONDS = 1.0
# A holder stops so long before its lease ends by its own clock, as what it began may take a while.
MARGIN_SECONDS = 0.3
RETRY_SECONDS = 1.0


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
        if not rows.fence(connection, self.name, self.number):
            raise self._lost()

    def renewed(self, until: float) -> None:
        """Nobody can take it before this time of ``clock``."""
        self._until = until

    def lose(self) -> None:
        """It is another's now."""
        self._is_lost = True

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            "Another server has just taken over from this one, and nothing was changed. Try again."
        )


Taken = Callable[[Lease], Awaitable[None]]
Lost = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class _Wanted:
    """A lease that this server wants for as long as it runs: it has it, or waits for it."""

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
        self._wanted: dict[str, _Wanted] = {}
        self._others = 0
        self._renewed_at = 0.0
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

    @property
    def is_alone(self) -> bool:
        """Whether there is no other server, as far as this one has been able to see of late."""
        if self._database.is_sqlite:
            return True
        return self._others == 0 and clock() - self._renewed_at < ALONE_SECONDS

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
        wanted = _Wanted(name, self._server, taken, lost)
        if self._database.is_sqlite:
            self._wanted[name] = wanted
            wanted.lease = Lease(name, 1, None)
            await taken(wanted.lease)
            return
        lease = await self._in(self._seeking, lambda c: take(c, name, wanted.holder))
        self._wanted[name] = wanted
        if lease is None:
            self._wake.set()
            return
        wanted.lease = lease
        await self._begin(wanted, lease)

    def adopt(self, lease: Lease, holder: str, lost: Lost) -> None:
        """Keep one that was taken before there was an event loop, by this name of the holder."""
        wanted = _Wanted(lease.name, holder, _nothing_with, lost)
        wanted.lease = lease
        self._wanted[lease.name] = wanted

    async def give_up(self, name: str) -> None:
        """Want it no more; ``lost`` is called where it was held. Another server takes it at once.

        Raises Unavailable where the database does not answer; then it runs out by itself.
        """
        wanted = self._wanted.pop(name, None)
        if wanted is not None:
            await self._give_back([wanted])

    async def holder_of(self, name: str) -> str | None:
        """The id of the server that holds a lease now; None where it has run out, and on SQLite.

        Changes of holders are told under ``Topic.LEASE``. Raises Unavailable.
        """
        if self._database.is_sqlite:
            return None
        found = await self._database.read(lambda c: rows.look(c, [name]))
        holder, rest = found.get(name, ("", 0.0))
        return holder if holder and rest > 0 else None

    async def held_by_others(self, prefix: str) -> set[str]:
        """What follows ``prefix`` in the names of leases that other servers hold now.

        Empty on SQLite. Raises Unavailable.
        """
        if self._database.is_sqlite:
            return set()
        return await self._database.read(
            partial(rows.held_by_others, prefix=prefix, server=self._server)
        )

    def held(self, name: str) -> Lease | None:
        """The lease of this name where this server has it."""
        wanted = self._wanted.get(name)
        return None if wanted is None else wanted.lease

    async def close(self) -> None:
        """Stop everything that leases of this server do, and give them to whoever waits."""
        for kept in self._kept:
            await kept.stop()
        await self._errands.stop()
        every = list(reversed(self._wanted.values()))
        self._wanted.clear()
        try:
            await self._give_back(every)
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
        held = [wanted.lease for wanted in self._wanted.values() if wanted.lease is not None]
        numbers = {lease.name: lease.number for lease in held}
        began = clock()
        until = began + LIFE_SECONDS - MARGIN_SECONDS
        renewed, self._others = await self._in(
            self._renewing, lambda c: rows.renew(c, self._server, numbers)
        )
        self._renewed_at = began
        for lease in held:
            if lease.name in renewed:
                lease.renewed(until)
            elif not lease.is_lost:
                self._note_loss(lease)

    def _note_loss(self, lease: Lease) -> None:
        log.warning("another server has taken over", what=lease.name)
        lease.lose()
        wanted = self._wanted.get(lease.name)
        if wanted is not None and wanted.lease is lease:
            wanted.lease = None
            wanted.is_ending = True
            self._errands.begin(self._end(wanted))

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
        open_ones = {wanted.name: wanted for wanted in self._wanted.values() if wanted.is_open}
        if not open_ones:
            return None
        found = await self._in(self._seeking, lambda c: rows.look(c, open_ones))
        rests = []
        for name, wanted in open_ones.items():
            holder, rest = found.get(name, ("", 0.0))
            if rest > 0 and holder not in ("", wanted.holder):
                rests.append(rest)
                continue
            take_it = partial(take, name=name, holder=wanted.holder)
            lease = await self._in(self._seeking, take_it)
            if lease is None:
                rests.append(RENEW_SECONDS)  # Somebody else was quicker.
            elif self._wanted.get(name) is not wanted:
                await self._in(self._seeking, partial(_release, held=[lease]))
            else:
                wanted.lease = lease
                self._errands.begin(self._begin(wanted, lease))
                self._ring()
        # A moment more, so that the time has come for certain.
        return min(rests) + 0.005 if rests else None

    # Changes.

    async def _begin(self, wanted: _Wanted, lease: Lease) -> None:
        async with wanted.turn:
            if lease.is_lost:
                return
            log.info("this server takes over", what=lease.name, number=lease.number)
            try:
                await wanted.taken(lease)
            except Exception:
                log.exception("cannot take over", what=lease.name)
                if wanted.lease is lease:
                    wanted.lease, wanted.is_ending = None, True
                    self._errands.begin(self._fail(wanted, lease))

    async def _fail(self, wanted: _Wanted, lease: Lease) -> None:
        lease.lose()
        async with wanted.turn:
            await self._stop(wanted)
        with suppress(Unavailable):  # It runs out by itself.
            await self._in(self._seeking, lambda c: _release(c, [lease]))
        await asyncio.sleep(RETRY_SECONDS)
        self._want_again(wanted)

    async def _end(self, wanted: _Wanted) -> None:
        async with wanted.turn:
            await self._stop(wanted)
        self._want_again(wanted)

    async def _stop(self, wanted: _Wanted) -> None:
        try:
            await wanted.lost()
        except Exception:
            log.exception("cannot stop what another server may take over", what=wanted.name)

    def _want_again(self, wanted: _Wanted) -> None:
        wanted.is_ending = False
        self._wake.set()

    async def _give_back(self, several: Iterable[_Wanted]) -> None:
        held = []
        for wanted in several:
            lease, wanted.lease, wanted.is_ending = wanted.lease, None, True
            if lease is not None:
                held.append(lease)
                async with wanted.turn:
                    await self._stop(wanted)
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
    """Take a lease where it is free, or this holder's already; None where it is another's."""
    until = clock() + LIFE_SECONDS - MARGIN_SECONDS
    number = rows.take(connection, name, holder)
    return None if number is None else Lease(name, number, until)


def _release(connection: Connection, held: Iterable[Lease]) -> None:
    rows.release(connection, [(lease.name, lease.number) for lease in held])


async def _nothing_with(_: Lease) -> None:
    pass
