"""What all servers of an installation offer to jobs, and which of them has which engine now.

Each server publishes what its own settings and engines have, and reads what the others published.
Its own presets come first: where two servers have one of the same name, each means its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
import structlog
from msgspec.structs import replace
from sqlalchemy import Connection, select, text

from neuro.domain.errors import Conflict, Unavailable
from neuro.domain.resources import NOTHING, Amount, Preset
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.reach import is_of_its_machine
from neuro.server.fleet.registry import ServerRecord
from neuro.server.fleet.tables import NOW, leases, servers
from neuro.server.jobs.board import Board
from neuro.server.jobs.holder import same_name
from neuro.server.jobs.leases import lease_of
from neuro.server.jobs.preset_tables import kept_presets
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.scheduler import explain

log = structlog.get_logger("neuro.jobs")

# Nobody tells that a server has died: its engine is told of once another one has it.
REFRESH_SECONDS = 5.0
_HOLDERS = (
    select(leases.c.name, leases.c.holder, servers.c.url, leases.c.number)
    .join(servers, servers.c.id == leases.c.holder)
    .where(leases.c.name.like(lease_of("%")), text(f"leases.expires_at > {NOW}"))
)


class EngineOffer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One engine. ``capacity`` is what jobs may take of it together.

    ``away`` says why it cannot be reached; then that may be none, for all that is known.
    """

    capacity: Amount
    notices: list[str] = []
    of_this_machine: bool = False
    away: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether ``capacity`` is what it has."""
        return self.away is None or self.capacity != NOTHING


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What one server has in its settings: engines by their names, and presets.

    ``machine`` is that of ``fleet.reach``.
    """

    engines: dict[str, EngineOffer] = {}
    presets: list[Preset] = []
    machine: str = ""


class HeldBy(NamedTuple):
    """Which server has an engine now, and where the others reach it.

    ``number`` counts up whenever it is taken: a server that began anew is another holder.
    """

    server: str
    url: str
    number: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Offered).decode


class Offers:
    """Of this server, and of the others as they come and go.

    ``presets`` and ``engines`` are always the same objects, and change.
    """

    def __init__(self, database: Database, fleet: Fleet, own: Offered) -> None:
        self.presets: list[Preset] = list(own.presets)
        self.engines: dict[str, EngineOffer] = dict(own.engines)
        self.capacities: dict[str, Amount] = {}
        self.server = fleet.id
        self._database = database
        self._fleet = fleet
        self._own = own
        self._administered: list[Preset] = []  # where there are any, no server's own count
        self._holders: dict[str, HeldBy] = {}
        self._of_others: set[str] = set()
        self._offers_of_others: dict[str, Offered] = {}  # by the ids of their servers
        self._is_published = True
        self._machines: dict[str, str] = {}
        self._news = asyncio.Event()
        self._refreshed = asyncio.Event()
        self._kept: Kept | None = None
        self._combine()

    async def start(self, background: Background) -> None:
        """Publish what this server has, and follow the others.

        Raises Conflict where another server has an engine of its machine by the same name, or
        where the address of one of the two does not lead the other one there; Unavailable.
        """
        self.administered(await self._database.read(kept_presets))
        if self._database.is_sqlite:
            return
        found = await self._fleet.servers.all()
        self._see(found)
        self.check_names({name for name, one in self._own.engines.items() if one.of_this_machine})
        self._check_addresses(found)
        self._fleet.servers.listen(self._news.set)
        for topic in (Topic.LEASE, Topic.PRESETS):
            self._fleet.changes.listen(topic, lambda keys: self._news.set())
        await self._fleet.servers.publish(_encode(self._own))
        await self._refresh()
        self._kept = background.keep("watch over what other servers offer", self._run)

    def administered(self, presets: list[Preset]) -> None:
        """These presets hold in place of those of the servers' settings, where there are any."""
        self._administered = presets
        self._combine()

    def disk_of(self, preset: str | None, otherwise: int) -> int:
        """How many bytes of private files a job with this preset may have."""
        return next((one.disk for one in self.presets if one.name == preset), otherwise)

    @property
    def presets_in_settings(self) -> bool:
        """Whether presets of ``server.toml`` hold."""
        return not self._administered

    def became(self, engine: str, capacity: Amount, away: str | None) -> None:
        """An engine of this server has so much now, or is away: let the other servers know."""
        before = self._own.engines[engine]
        now = replace(before, capacity=capacity, away=away)
        if now == before:
            return
        self._own = replace(self._own, engines={**self._own.engines, engine: now})
        self._combine()
        self._is_published = False
        self._news.set()

    async def close(self) -> None:
        """Stop."""
        if self._kept is not None:
            await self._kept.stop()

    async def holder_of(self, engine: str) -> HeldBy | None:
        """Which other server has an engine at this moment. Raises Unavailable."""
        if self._database.is_sqlite:
            return None
        self._holders = await self._database.read(_holders)
        found = self._holders.get(lease_of(engine))
        if found is None or found.server == self._fleet.id:
            return None
        if is_of_its_machine(found.url) and not await self._is_here(found.server):
            # A stranger may listen there, who must not get anybody's token.
            raise Unavailable(
                f"The server that has the engine '{engine}' is on another machine, and says that"
                f" it is at {found.url}: write `url` below [server] in its server.toml."
            )
        return found

    async def _is_here(self, server: str) -> bool:
        if server not in self._machines:
            await self._refresh()
        return self._machines.get(server) == self._own.machine

    def is_held(self, engine: str) -> bool:
        """Whether a server had an engine a moment ago; on SQLite this one always has it."""
        return self._database.is_sqlite or lease_of(engine) in self._holders

    def check_names(self, of_this_machine: Collection[str]) -> None:
        """Raise Conflict for an engine of this machine that another server has on its own."""
        for name in sorted(self._of_others.intersection(of_this_machine)):
            raise same_name(name)

    def look(self) -> None:
        """Look soon at which server has which engine."""
        self._news.set()

    async def until_moved(self, engine: str, held: HeldBy) -> None:
        """Return when an engine was taken by another server, or anew by the same one."""
        while True:
            now = self._holders.get(lease_of(engine))
            if now is not None and now != held:
                return
            await self._refreshed.wait()

    def waits_for(self, record: JobRecord, board: Board) -> str | None:
        """What a pending job of an engine that this server does not hold waits for."""
        engine = self.engines.get(record.engine)
        if engine is not None and engine.away is not None:
            return engine.away
        if lease_of(record.engine) not in self._holders:
            return f"Waits for a server that has the engine '{record.engine}'"
        if record.placed or record.specification.control:
            return None
        return explain(record.specification.amount, self.free(record.engine, board), 0)

    def capacity(self, engine: str, board: Board) -> Amount:
        """What an engine has for jobs, wherever it is."""
        lane = board.lanes.get(engine)
        return self.capacities.get(engine, NOTHING) if lane is None else lane.capacity

    def free(self, engine: str, board: Board) -> Amount:
        """What jobs may still take of an engine, wherever it is."""
        lane = board.lanes.get(engine)
        if lane is not None:
            return lane.free
        return self.capacities.get(engine, NOTHING) - board.load_of(engine).taken

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._publish()
                await self._refresh()
            except Unavailable:  # Logged where it is met.
                await asyncio.sleep(REFRESH_SECONDS)

    async def _publish(self) -> None:
        if not self._is_published:
            own = self._own
            await self._fleet.servers.publish(_encode(own))
            self._is_published = own is self._own

    async def _refresh(self) -> None:
        self._holders = await self._database.read(_holders)
        self._administered = await self._database.read(kept_presets)
        self._see(await self._fleet.servers.all())
        refreshed, self._refreshed = self._refreshed, asyncio.Event()
        refreshed.set()

    def _see(self, servers: list[ServerRecord]) -> None:
        others = [(one, offered(one)) for one in servers if one.id != self._fleet.id]
        self._of_others = {name for one, offer in others if one.is_alive for name in offer.engines}
        self._machines = {one.id: offer.machine for one, offer in others}
        self._offers_of_others = {one.id: offer for one, offer in others}
        self._combine()

    def _check_addresses(self, servers: list[ServerRecord]) -> None:
        own = next((it.url for it in servers if it.id == self._fleet.id), "")
        for other in servers:
            machine = offered(other).machine
            if other.id == self._fleet.id or not other.is_alive or not machine:
                continue
            if machine == self._own.machine:
                continue
            for url, whose in ((own, "this one's"), (other.url, "the other one's")):
                if is_of_its_machine(url):
                    raise Conflict(
                        "A server of this database is on another machine than this one, and"
                        f" {url} does not lead from the one to the other: write `url` below"
                        f" [server] in {whose} server.toml, with an address that both reach."
                    )

    def _combine(self) -> None:
        presets: dict[str, Preset] = {}
        engines: dict[str, EngineOffer] = {}
        for offered in (self._own, *self._offers_of_others.values()):
            for preset in offered.presets:
                presets.setdefault(preset.name, preset)
            for name, engine in offered.engines.items():
                if name not in engines or (engines[name].away and not engine.away):
                    engines[name] = engine
        for name in engines:  # Nobody knows one better than its holder.
            held = self._holders.get(lease_of(name))
            told = self._offers_of_others.get(held.server) if held is not None else None
            if told is not None and name in told.engines:
                engines[name] = told.engines[name]
        # One of an engine that no server has now is there again with it.
        given = [one for one in self._administered if one.engine in engines]
        self.presets[:] = given if self._administered else presets.values()
        _become(self.engines, engines)
        # Of one that was never there nobody knows what it has.
        known = {name: one.capacity for name, one in engines.items() if one.is_known}
        _become(self.capacities, known)


def offered(server: ServerRecord) -> Offered:
    """What a server has published; nothing where that cannot be read."""
    try:
        return _decode(server.offer) if server.offer is not None else Offered()
    except msgspec.MsgspecError as error:  # of another version
        log.error("cannot read what a server offers", server=server.id, error=str(error))
        return Offered()


def _holders(connection: Connection) -> dict[str, HeldBy]:
    return {
        row.name: HeldBy(row.holder, row.url, row.number) for row in connection.execute(_HOLDERS)
    }


def _become(old: dict[str, EngineOffer] | dict[str, Amount], new: Mapping[str, object]) -> None:
    old.clear()
    old.update(new)  # type: ignore[arg-type]
