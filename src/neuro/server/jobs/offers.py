"""What all servers of an installation offer to jobs, and which of them has which engine now.

Each server publishes what its own settings and engines have, and reads what the others published.
Its own presets come first: where two servers have one of the same name, each means its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection, select, text

from neuro.domain.errors import Unavailable
from neuro.domain.resources import NOTHING, Amount, Preset
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.registry import ServerRecord
from neuro.server.fleet.tables import NOW, leases, servers
from neuro.server.jobs.board import Board
from neuro.server.jobs.holder import same_name
from neuro.server.jobs.leases import lease_of
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.scheduler import explain

log = structlog.get_logger("neuro.jobs")

# Nobody tells that a server has died: its engine is told of once another one has it.
REFRESH_SECONDS = 5.0
# What is free of another server's engine is counted again after so long: lists show many jobs.
LEFT_SECONDS = 1.0
_HOLDERS = (
    select(leases.c.name, leases.c.holder, servers.c.url)
    .join(servers, servers.c.id == leases.c.holder)
    .where(leases.c.name.like(lease_of("%")), text(f"leases.expires_at > {NOW}"))
)


class EngineOffer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One engine. ``capacity`` is what jobs may take of it together."""

    capacity: Amount
    notices: list[str] = []
    of_this_machine: bool = False


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What one server has in its settings: engines by their names, and presets."""

    engines: dict[str, EngineOffer] = {}
    presets: list[Preset] = []


class HeldBy(NamedTuple):
    """Which server has an engine now, and where the others reach it."""

    server: str
    url: str


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
        self._database = database
        self._fleet = fleet
        self._own = own
        self._holders: dict[str, HeldBy] = {}
        self._left: dict[str, tuple[float, Amount]] = {}  # since when so much is free
        self._news = asyncio.Event()
        self._refreshed = asyncio.Event()
        self._kept: Kept | None = None
        self._combine([])

    async def start(self, background: Background) -> None:
        """Publish what this server has, and follow the others.

        Raises Conflict where another server has an engine of its machine by the same name,
        Unavailable.
        """
        if self._database.is_sqlite:
            return
        self._check_names(await self._fleet.servers.all())
        self._fleet.servers.listen(self._news.set)
        self._fleet.changes.listen(Topic.LEASE, lambda keys: self._news.set())
        await self._fleet.servers.publish(_encode(self._own))
        await self._refresh()
        self._kept = background.keep("watch over what other servers offer", self._run)

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
        return None if found is None or found.server == self._fleet.id else found

    def look(self) -> None:
        """Look soon at which server has which engine."""
        self._news.set()

    async def until_moved(self, engine: str, held: HeldBy) -> None:
        """Return when another server has taken an engine over."""
        while True:
            now = self._holders.get(lease_of(engine))
            if now is not None and now.server != held.server:
                return
            await self._refreshed.wait()

    def waits_for(self, record: JobRecord, board: Board) -> str | None:
        """What a pending job of an engine that this server does not hold waits for."""
        if lease_of(record.engine) not in self._holders:
            return f"Waits for a server that has the engine '{record.engine}'"
        if record.placed or record.specification.control:
            return None
        now = asyncio.get_running_loop().time()
        since, left = self._left.get(record.engine, (0.0, NOTHING))
        if not since or now - since > LEFT_SECONDS:
            left = self.free(record.engine, board)
            self._left[record.engine] = now, left
        return explain(record.specification.amount, left, 0)

    def free(self, engine: str, board: Board) -> Amount:
        """What jobs may still take of an engine, wherever it is."""
        lane = board.lanes.get(engine)
        if lane is not None:
            return lane.free
        left = self.capacities.get(engine, NOTHING)
        for record in board.elsewhere:
            if record.engine == engine and record.placed and not record.specification.control:
                left -= record.specification.amount
        return left

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._refresh()
            except Unavailable:  # Logged where it is met.
                await asyncio.sleep(REFRESH_SECONDS)

    async def _refresh(self) -> None:
        self._holders = await self._database.read(_holders)
        others = await self._fleet.servers.all()
        self._combine([offered(other) for other in others if other.id != self._fleet.id])
        refreshed, self._refreshed = self._refreshed, asyncio.Event()
        refreshed.set()

    def _check_names(self, servers: list[ServerRecord]) -> None:
        mine = {name for name, one in self._own.engines.items() if one.of_this_machine}
        for other in servers:
            if other.id == self._fleet.id or not other.is_alive:
                continue
            for name in mine & offered(other).engines.keys():
                raise same_name(name)

    def _combine(self, others: list[Offered]) -> None:
        presets: dict[str, Preset] = {}
        engines: dict[str, EngineOffer] = {}
        for offered in (self._own, *others):
            for preset in offered.presets:
                presets.setdefault(preset.name, preset)
            for name, engine in offered.engines.items():
                engines.setdefault(name, engine)
        self.presets[:] = presets.values()
        _become(self.engines, engines)
        _become(self.capacities, {name: one.capacity for name, one in engines.items()})


def offered(server: ServerRecord) -> Offered:
    """What a server has published; nothing where that cannot be read."""
    try:
        return _decode(server.offer) if server.offer is not None else Offered()
    except msgspec.MsgspecError as error:  # of another version
        log.error("cannot read what a server offers", server=server.id, error=str(error))
        return Offered()


def _holders(connection: Connection) -> dict[str, HeldBy]:
    return {row.name: HeldBy(row.holder, row.url) for row in connection.execute(_HOLDERS)}


def _become(old: dict[str, EngineOffer] | dict[str, Amount], new: Mapping[str, object]) -> None:
    old.clear()
    old.update(new)  # type: ignore[arg-type]
