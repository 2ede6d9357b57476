"""Finds the facts about an attempt that a decision is taken from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, TaskStatus
from neuro.server.bakes.attempts import drivers
from neuro.server.bakes.events import Hub
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.changes import record as record_change
from neuro.server.fleet.registry import Servers
from neuro.server.jobs.record import JobRecord
from neuro.server.supervision import main_jobs, records
from neuro.server.supervision.decisions import Executor, Facts, Limits
from neuro.server.supervision.records import Known
from neuro.server.supervision.watches import Watch, now

Fence = Callable[[Connection], None]


class FactFinder:
    """For all attempts of one installation."""

    def __init__(self, database: Database, hub: Hub, servers: Servers, limits: Limits) -> None:
        self._database = database
        self._hub = hub
        self._servers = servers
        self._limits = limits

    async def find(
        self, watch: Watch, known: Known, record: JobRecord | None, fence: Fence
    ) -> Facts:
        """The facts about an attempt, whose executor is the job ``record``, if it is one.

        What it has to write is fenced. Raises Unavailable, LeaseLost.
        """
        attempt = known.attempt
        executor = main_jobs.state_of(record)
        if executor is Executor.DEAD and watch.dead_job != attempt.executor_id:
            await self._note_death(watch, attempt, fence)
        is_driven = self._hub.is_driven(attempt.id)
        if not is_driven and executor is Executor.TERMINAL:
            is_driven = await self._is_driven_at_another(watch, attempt.id, fence)
        silent = 0.0 if is_driven else now() - watch.heard_at
        return Facts(
            result=attempt.result,
            executor=executor,
            silent=silent,
            dead_for=now() - watch.died_at,
            deaths=watch.deaths,
            is_scheduled=_is_scheduled(known),
            is_busy_locally=executor is Executor.TERMINAL
            and await self._is_busy_locally(watch, attempt, silent),
        )

    async def _is_driven_at_another(self, watch: Watch, attempt_id: str, fence: Fence) -> bool:
        if self._database.is_sqlite:
            return False
        found = await self._database.read(partial(drivers.servers_of, attempt_id=attempt_id))
        others = found - {self._servers.id}
        if not others:
            return False
        watch.had_stream = True
        alive = {server.id for server in await self._servers.all() if server.is_alive}
        if others & alive:
            return True

        # Its stream has ended with the server: from now on its silence counts.
        def forget(connection: Connection) -> None:
            fence(connection)
            for server in others:
                drivers.detach(connection, attempt_id, server)
            record_change(connection, Topic.DRIVER, [attempt_id])

        await self._database.write(forget)
        watch.heard_at = now()
        return False

    async def _is_busy_locally(self, watch: Watch, attempt: Attempt, silent: float) -> bool:
        # A client that has streams shows its life by them, whatever it does meanwhile.
        if watch.had_stream or silent < self._limits.silence:
            return False
        return await self._database.read(partial(records.is_busy_locally, attempt=attempt))

    async def _note_death(self, watch: Watch, attempt: Attempt, fence: Fence) -> None:
        def note(connection: Connection) -> int:
            fence(connection)
            return records.count_death(connection, attempt)

        watch.deaths = await self._database.write(note)
        watch.dead_job = attempt.executor_id
        watch.died_at = now()


def _is_scheduled(known: Known) -> bool:
    # Later attempts are begun by whoever asked for them.
    return (
        known.bake.meta.schedule is not None
        and known.attempt.number == 1
        and known.attempt.executor_id is None
        and known.attempt.result is not TaskStatus.RUNNING
    )
