"""Starts the bakes of schedules when they are due, each exactly once.

A time is dealt with in the transaction that makes its bake: it moves the schedule's ``next_at`` on,
which never goes back. So a crash, or a clock that is set back, starts nothing twice. What is made
is a bake with an attempt that nobody drives yet; the supervision starts its main job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import msgspec
import structlog
from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, Bake, CatchUp, Overlap, Schedule, TaskStatus
from neuro.domain.errors import NotFound, NotPermitted, PlatformError, Unavailable
from neuro.server.access.identity import Identity
from neuro.server.access.service import AccessService
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.bakes.attempts import turns
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_attempt
from neuro.server.bakes.files import tables as files
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit
from neuro.server.fleet.leases import LeaseLost
from neuro.server.projects.guard import Guard
from neuro.server.schedules import tables
from neuro.server.schedules.making import Made, make
from neuro.server.schedules.service import check_may_start
from neuro.server.schedules.tables import Stored
from neuro.server.schedules.times import MAX_CATCH_UP, due_between, next_after, to_start

log = structlog.get_logger("neuro.schedules")

# The clock may be set meanwhile: it is looked at this often.
LONGEST_SLEEP = 60.0
RETRY_SECONDS = 5.0
DAMAGED_PAUSE = timedelta(hours=1)


def _now() -> datetime:
    return datetime.now(UTC)


class ScheduleRunner:
    """Waits for the next time that any schedule is due."""

    def __init__(
        self,
        database: Database,
        guard: Guard,
        hub: Hub,
        attempts: AttemptService,
        access: AccessService,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self._guard = guard
        self._hub = hub
        self._attempts = attempts
        self._access = access
        self._now = now
        self._changed = asyncio.Event()
        # Raises where another server does this by now; asked in transactions that repeat nothing.
        self.fence: Callable[[Connection], None] | None = None

    def changed(self) -> None:
        """A schedule is another: look again when the next is due."""
        self._changed.set()

    async def run(self) -> None:
        """Start the schedules that are due, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.start_due()
                seconds = await self._until_next()
            except (Unavailable, LeaseLost) as error:
                log.error(
                    "cannot start the schedules that are due, trying again", error=error.message
                )
                seconds = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def _until_next(self) -> float:
        moment = await self._database.read(tables.next_due)
        if moment is None:
            return LONGEST_SLEEP
        return min(max(0.0, (moment - self._now()).total_seconds()), LONGEST_SLEEP)

    async def start_due(self) -> list[Bake]:
        """Deal with every time that has come; returns the bakes that were started."""
        started: list[Bake] = []
        for schedule_id in await self._database.read(partial(tables.due, now=self._now())):
            try:
                stored = await self._database.read(partial(tables.get, schedule_id=schedule_id))
                if stored is not None:
                    started += await self._start_times(stored)
            except (Unavailable, LeaseLost):
                raise
            except Exception:
                # One that is damaged must not hold up the others.
                log.exception("cannot start the schedules that are due", schedule=schedule_id)
                await self._postpone(schedule_id)
        return started

    async def _postpone(self, schedule_id: str) -> None:
        until = self._now() + DAMAGED_PAUSE
        message = "The server could not start it, see the server's log: schedule it again."

        def postpone(connection: Connection) -> None:
            if self.fence is not None:
                self.fence(connection)
            tables.postpone(connection, schedule_id, until, message)

        await self._database.write(postpone)

    async def _start_times(self, stored: Stored) -> list[Bake]:
        schedule, now = stored.schedule, self._now()
        if schedule.next_at is None:
            return []
        most = MAX_CATCH_UP if schedule.catch_up is CatchUp.ALL else 1
        before = schedule.next_at - timedelta(seconds=1)
        come = due_between(schedule.cron, schedule.timezone, before, now, most)
        times: list[datetime | None] = [*to_start(come, now, schedule.catch_up)]
        following = next_after(schedule.cron, schedule.timezone, now)
        if not times:
            missed = f"Missed, because the server was down: {_text(schedule.next_at)}."
            expected = schedule.next_at
            await self._database.write(
                lambda c: tables.claim(c, schedule.id, expected, following, missed)
            )
            return []
        started: list[Bake] = []
        expected = schedule.next_at
        for time, then in pairwise([*times, following]):
            assert time is not None
            bake = await self._start(stored, expected, time, then)
            if bake is not None:
                started.append(bake)
            expected = then or now
        return started

    async def _start(
        self, stored: Stored, expected: datetime, time: datetime, following: datetime | None
    ) -> Bake | None:
        schedule = stored.schedule
        try:
            owner = await self._access.identity_of(schedule.owner)
        except Unavailable:
            raise
        except PlatformError as error:
            message = _refused(time, error)
            await self._database.write(
                lambda c: tables.claim(c, schedule.id, expected, following, message)
            )
            return None

        if schedule.overlap is Overlap.CANCEL:
            await self._cancel_running(schedule, owner, time)

        def begin(connection: Connection) -> Made | None:
            if not tables.claim(connection, schedule.id, expected, following, None):
                return None
            return self._begin(connection, stored, owner, time)

        started = await commit(self._database, begin, self._tell)
        return None if started is None else started.bake

    async def _cancel_running(self, schedule: Schedule, owner: Identity, time: datetime) -> None:
        def find(connection: Connection) -> Attempt | None:
            check_may_start(self._guard, connection, owner, schedule.project_id)
            return tables.running(connection, schedule.id)

        try:
            running = await self._database.read(find)
        except (NotFound, NotPermitted):
            return  # Nothing comes in its place, as ``_begin`` will tell.
        if running is not None:
            message = f"Cancelled by its schedule, which was due again at {_text(time)}."
            await self._attempts.change(
                running.id, result=TaskStatus.CANCELLED, message=message, fence=self.fence
            )

    def _begin(
        self, connection: Connection, stored: Stored, owner: Identity, time: datetime
    ) -> Made | None:
        schedule = stored.schedule
        try:
            check_may_start(self._guard, connection, owner, schedule.project_id)
        except PlatformError as error:
            tables.tell(connection, schedule.id, _refused(time, error))
            return None
        running = tables.running(connection, schedule.id)
        if running is not None and schedule.overlap is not Overlap.ALLOW:
            message = f"Skipped {_text(time)}: {running.bake_id} was still running."
            tables.tell(connection, schedule.id, message)
            return None
        made = make(schedule.id, owner.user, stored.request, self._now())
        bakes.add_bake(connection, made.bake)
        for file in made.files:
            files.add_file(connection, file)
        attempts.add_attempt(connection, made.attempt)
        turns.enter(connection, made.bake, made.attempt)
        record_attempt(connection, made.attempt)
        tables.started(connection, schedule.id, time, made.bake.id)
        return made

    def _tell(self, started: Made | None) -> None:
        if started is not None:
            brief = msgspec.structs.replace(started.bake, graphs={})
            self._hub.attempt_created(brief, started.attempt)


def _refused(time: datetime, error: PlatformError) -> str:
    return f"No bake was started at {_text(time)}: {error.message}"


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
