"""The parts that act by themselves, put together: who looks after bakes, and who starts them."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.bakes import TaskStatus
from neuro.domain.errors import PlatformError
from neuro.server.access.service import AccessService
from neuro.server.background import Background, Kept
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.attempts.tables import unfinished_of_owners
from neuro.server.bakes.feed import BakeFeed
from neuro.server.database.engine import Database
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.changes import Topic, record
from neuro.server.fleet.leases import Lease
from neuro.server.http.routes import Route
from neuro.server.jobs.board import Board
from neuro.server.jobs.service import JobService
from neuro.server.schedules import tables as schedules
from neuro.server.schedules.routes import schedule_routes
from neuro.server.schedules.runner import ScheduleRunner
from neuro.server.schedules.service import ScheduleService
from neuro.server.settings import BakeSetting
from neuro.server.supervision.decisions import Limits
from neuro.server.supervision.routes import supervision_routes
from neuro.server.supervision.starter import Starter
from neuro.server.supervision.supervisor import Supervisor

log = structlog.get_logger("neuro.bakes")


class Supervision:
    """Everything that the server does for bakes unasked."""

    def __init__(
        self,
        database: Database,
        services: BakeServices,
        board: Board,
        jobs: JobService,
        access: AccessService,
        limits: Limits,
        background: Background,
        fleet: Fleet,
    ) -> None:
        guard, hub, attempts = services.guard, services.hub, services.attempts
        starter = Starter(database, jobs, attempts, access)
        self._supervisor = Supervisor(
            database, hub, board, jobs, attempts, starter, limits, background, fleet.servers
        )
        self._feed = BakeFeed(database, hub, fleet.changes, fleet.id, background)
        self._fleet = fleet
        self._database = database
        self._attempts = attempts
        self._runner = ScheduleRunner(database, guard, hub, attempts, access)
        service = ScheduleService(database, guard, changed=self._schedule_changed)
        self.routes: list[Route] = [
            *supervision_routes(attempts, starter).items,
            *schedule_routes(service).items,
        ]
        self._background = background
        self._schedules: Kept | None = None

    async def start(self) -> None:
        """Take over what there is, or wait until this server may.

        The server must be ready for the jobs that this starts.
        """
        await self._feed.start()
        self._fleet.changes.listen(Topic.SCHEDULE, lambda keys: self._runner.changed())
        await self._supervisor.end_stranded()
        await self._fleet.leases.keep("bakes", self._take, self._drop)

    async def _take(self, lease: Lease) -> None:
        await self._supervisor.take(lease)
        self._runner.fence = lease.check
        self._schedules = self._background.keep("schedules of bakes", self._runner.run)

    async def _drop(self) -> None:
        if self._schedules is not None:
            await self._schedules.stop()
            self._schedules = None
        await self._supervisor.drop()

    def _schedule_changed(self) -> None:
        self._runner.changed()
        self._fleet.changes.ring()

    async def end_all_of(self, owners: Collection[str]) -> None:
        """Cancel the bakes of people who are gone, and remove their schedules."""
        removed = await self._database.write(partial(_remove_schedules, owners=owners))
        if removed:
            self._schedule_changed()
        for attempt_id in await self._database.read(partial(unfinished_of_owners, owners=owners)):
            try:
                await self._attempts.change(
                    attempt_id, result=TaskStatus.CANCELLED, message="Its owner was removed."
                )
            except PlatformError:  # a damaged one keeps no other alive
                log.exception("cannot cancel a removed user's attempt", attempt=attempt_id)

    async def close(self) -> None:
        """Stop; bakes go on."""
        await self._drop()
        await self._feed.close()


def _remove_schedules(connection: Connection, owners: Collection[str]) -> int:
    removed = schedules.remove_all_of(connection, owners)
    if removed:
        record(connection, Topic.SCHEDULE, owners)
    return removed


def limits_of(setting: BakeSetting) -> Limits:
    """The limits that an installation's settings give."""
    return Limits(
        silence=setting.executor_silence,
        abandoned=setting.start,
        grace=setting.grace,
        pause=setting.restart_pause,
        longest_pause=60 * setting.restart_pause,
        deaths=setting.restarts,
    )
