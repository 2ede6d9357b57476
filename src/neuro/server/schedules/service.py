"""The rules of schedules: who may have which. Knows no HTTP; ``runner`` starts their bakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection

from neuro.domain.bakes import Schedule, ScheduleRequest, new_id
from neuro.domain.errors import Conflict, NotFound
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.database.blobs import pack
from neuro.server.database.damage import Listed
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns, paged
from neuro.server.fleet.changes import Topic, record
from neuro.server.projects.guard import Guard, is_id, missing
from neuro.server.schedules import tables
from neuro.server.schedules.making import check
from neuro.server.schedules.tables import Stored
from neuro.server.schedules.times import check_timing, next_after

# Of each person: nobody takes the places of others.
MAX_SCHEDULES = 1000
# Each holds the content of its flow files.
PAGE = 20


def _now() -> datetime:
    return datetime.now(UTC)


class ScheduleService:
    """The schedules of one installation."""

    def __init__(
        self,
        database: Database,
        guard: Guard,
        *,
        changed: Callable[[], None],
        now: Callable[[], datetime] = _now,
    ) -> None:
        """``changed`` is called when one was made, changed or removed."""
        self._database = database
        self._turns = Turns(database)
        self._guard = guard
        self._changed = changed
        self._now = now

    async def put(self, caller: Identity, request: ScheduleRequest) -> Schedule:
        """Make the schedule of a project's batch, or change it; the caller becomes its owner.

        Times before this moment are not caught up on. Raises InvalidInput for an invalid schedule,
        NotFound and NotPermitted where the caller may not start bakes, Conflict for one too many.
        """
        now = self._now()
        check_timing(request.cron, request.timezone, now)
        check(request)
        new = Stored(
            Schedule(
                id=new_id("schedule"),
                project_id=request.project_id,
                batch=request.batch,
                cron=request.cron,
                timezone=request.timezone,
                overlap=request.overlap,
                catch_up=request.catch_up,
                owner=caller.user,
                created_at=now,
                next_at=next_after(request.cron, request.timezone, now),
            ),
            request,
        )
        packed = await asyncio.to_thread(pack, request)
        stored = await self._turns.write(
            caller.user, len(packed), partial(self._put, caller, new, packed)
        )
        self._changed()
        return stored

    def _put(
        self, caller: Identity, new: Stored, packed: bytes, connection: Connection
    ) -> Schedule:
        project_id, batch = new.schedule.project_id, new.schedule.batch
        check_may_start(self._guard, connection, caller, project_id)
        tables.lock_project(connection, project_id)
        known = tables.of_batch(connection, project_id, batch)
        schedule_id, owner = known or (new.schedule.id, None)
        is_one_more = owner != caller.user
        if is_one_more and tables.count_of(connection, caller.user) >= MAX_SCHEDULES:
            raise Conflict(
                f"You have {MAX_SCHEDULES} schedules already: remove one that is not needed."
            )
        if known is None:
            tables.add(connection, new, packed)
        else:
            tables.replace(connection, schedule_id, new, packed)
        stored = tables.get(connection, schedule_id)
        assert stored is not None
        record(connection, Topic.SCHEDULE, [stored.schedule.id])
        return stored.schedule

    async def list(self, caller: Identity, project_id: str) -> AsyncGenerator[Schedule]:
        """A project's schedules by batch; none where the caller can see no such project."""

        def see(connection: Connection) -> None:
            self._guard.project(connection, caller, project_id, Action.READ)

        try:
            await self._database.read(see)
        except NotFound:
            return

        def page(
            after: Listed[str, Stored] | None, connection: Connection
        ) -> list[Listed[str, Stored]]:
            return tables.list_schedules(connection, project_id, page=PAGE, after=after)

        async for listed in paged(self._database, PAGE, page):
            if listed.record is not None:
                yield listed.record.schedule

    async def remove(self, caller: Identity, schedule_id: str) -> None:
        """Remove a schedule; its bakes stay. Raises NotFound."""

        def change(connection: Connection) -> None:
            hidden = missing("Schedule", schedule_id)
            project_id = None
            if is_id("schedule", schedule_id):
                project_id = tables.project_of(connection, schedule_id)
            if project_id is None:
                raise hidden
            self._guard.project(connection, caller, project_id, Action.WRITE, hidden)
            tables.remove(connection, schedule_id)
            record(connection, Topic.SCHEDULE, [schedule_id])

        await self._database.write(change)
        self._changed()


def check_may_start(
    guard: Guard, connection: Connection, caller: Identity, project_id: str
) -> None:
    """Raise unless the caller may write to a project and submit jobs."""
    guard.project(connection, caller, project_id, Action.WRITE)
    caller.require(ResourceURI("job", guard.cluster, (caller.user,)), Action.WRITE)
