"""Which engines are this server's: takes those whose leases it gets, and drops those it loses.

Exactly one server schedules and reconciles the jobs of an engine: the holder of its lease. An
engine that is a part of a machine is sought by that machine's server alone; one that several
servers have in their settings is one server's, and another takes it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

import structlog

from neuro.domain.errors import Conflict, Unavailable
from neuro.engines.base import EngineFault, RunRef
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.fleet.leases import Lease, Leases
from neuro.server.jobs import lookups, tables
from neuro.server.jobs.arrivals import Arrivals
from neuro.server.jobs.board import Board
from neuro.server.jobs.follower import JobFollower
from neuro.server.jobs.holding import Sharing
from neuro.server.jobs.leases import OfThisMachine, lease_of
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.writer import CLOSE_SECONDS, Writer

log = structlog.get_logger("neuro.jobs")


def same_name(engine: str) -> Conflict:
    """What is said where two machines have an engine of one name."""
    return Conflict(
        f"Another server of this database has an engine '{engine}' on its machine: give this one a"
        " `name` below [server] in server.toml that no other has. An engine that began under a name"
        " keeps it: a server that was replaced by another one begins with an empty data folder that"
        " has the keys/tokens.key of this one."
    )


class Holder:
    """The engines that are in the settings of this server."""

    def __init__(
        self,
        database: Database,
        board: Board,
        writer: Writer,
        reconciler: Reconciler,
        follower: JobFollower,
        changes: Changes,
        shares: Mapping[str, Sharing],
        of_this_machine: Collection[str],
        look: Callable[[], None],
        leases: Leases,
        arrivals: Arrivals,
    ) -> None:
        """``shares`` are what jobs may have of each engine.

        ``of_this_machine`` are the engines that no other server can have.
        ``look`` is called when an engine is taken; the other servers are told.
        ``arrivals`` says which engines are away.
        """
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._follower = follower
        self._failed: dict[str, Exception] = {}
        self._changes = changes
        self._shares = shares
        self._look = look
        self._of_this_machine = of_this_machine
        self._leases = leases
        self._arrivals = arrivals
        self._unwanted: set[str] = set()

    async def start(self) -> None:
        """Take what is free, and want the rest.

        An engine of this machine is taken now, also one that is away. Raises Conflict where another
        server has one by the same name, and Unavailable.
        """
        for name in self._shares:
            if self._arrivals.is_away(name) and self._is_shared(name):
                # Another server may reach it, and is to have it.
                self._unwanted.add(name)
            else:
                await self._want(name)

    async def came(self, name: str) -> None:
        """Go on with an engine that was away. Raises EngineFault, OSError, Unavailable."""
        if name in self._unwanted:
            await self._want(name)
            self._unwanted.discard(name)
        elif self._reconciler.holding(name) is not None:
            await self._reconciler.meet(name, await self._known(name))

    async def _want(self, name: str) -> None:
        taken, lost = partial(self._taken, name), partial(self._lost, name)
        await self._leases.keep(lease_of(name), taken, lost)
        if name in self._of_this_machine and self._reconciler.holding(name) is None:
            raise self._failed.get(name) or same_name(name)

    def _is_shared(self, name: str) -> bool:
        return name not in self._of_this_machine and not self._database.is_sqlite

    async def close(self) -> None:
        """Write what is left, and let another server have the engines at once."""
        if self._database.is_sqlite:
            return
        await self._reconciler.close()
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.settle()
        for name in self._shares:
            with suppress(Unavailable):  # What cannot be given back now runs out.
                await self._leases.give_up(lease_of(name))

    async def _taken(self, name: str, lease: Lease) -> None:
        try:
            await self._take(name, lease)
        except Exception as error:
            self._failed[name] = error
            raise

    async def _take(self, name: str, lease: Lease) -> None:
        guard = OfThisMachine(lease) if name in self._of_this_machine else lease
        active = await self._database.read(partial(tables.active_jobs, engine=name))
        known = await self._known(name)
        self._writer.fence(name, guard)
        take = partial(self._reconciler.take, name, self._shares[name], active, known, guard)
        try:
            await take(self._arrivals.away.get(name))
        except (EngineFault, OSError) as error:
            if self._is_shared(name) or self._arrivals.is_needed(name):
                raise
            self._arrivals.gone(name, error)
            await take(self._arrivals.away[name])
        log.info("engine taken", engine=name, jobs=len(active))
        await self._database.write(lambda c: tell_others(c, Topic.LEASE, (lease.name,)))
        self._changes.ring()
        self._look()
        # What was submitted while it was taken, and what was asked while nobody had it.
        self._follower.changed(self._of(name))
        self._follower.asked(None)

    async def _known(self, name: str) -> list[RunRef]:
        runs = await self._database.read(partial(lookups.runs_with_logs, engine=name))
        return [RunRef(job_id, run) for job_id, run in runs]

    async def _lost(self, name: str) -> None:
        await self._reconciler.drop(name)
        # What was not written did not happen: its new holder says what did.
        self._follower.changed(self._of(name))

    def _of(self, name: str) -> list[str]:
        return [record.id for record in self._board.followed if record.engine == name]
