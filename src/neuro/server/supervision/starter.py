"""Starts the jobs that drive attempts: each in the name of its bake's owner, and one at a time.

Whoever asks for it, a bake does what its owner may do. Else the administrator who restarts
somebody's bake would lend their own rights to that person's flow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from sqlalchemy import Connection

from neuro.domain.bakes import TaskStatus
from neuro.domain.errors import Conflict, NotFound, PlatformError, TooManyRequests, Unavailable
from neuro.domain.jobs import Job
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.access.service import AccessService
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.database.engine import Database
from neuro.server.fleet.leases import LeaseLost
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService
from neuro.server.schedules import tables as schedules
from neuro.server.supervision import main_jobs, records
from neuro.server.supervision.records import Known


class Starter:
    """The main jobs of one installation's attempts."""

    def __init__(
        self,
        database: Database,
        jobs: JobService,
        attempts: AttemptService,
        access: AccessService,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._attempts = attempts
        self._access = access
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def is_at(self, attempt_id: str) -> bool:
        """Whether an attempt is being given a main job now."""
        return attempt_id in self._locks

    async def start(self, caller: Identity, attempt_id: str) -> Job:
        """Submit the job that drives an attempt, in its owner's name; the same one every time.

        The caller may write to the attempt. Raises Conflict for an attempt that is over or whose
        owner was removed, NotFound for none, and whatever the submission of a job raises.
        """
        async with self._lock(attempt_id):
            known = await self._known(attempt_id)
            if known is None:
                raise NotFound(f"Attempt '{attempt_id[:80]}' was not found.")
            attempt = known.attempt
            if attempt.executor_id is not None:
                record = await self._jobs.find(caller, attempt.executor_id, Action.READ)
                return self._jobs.show(record)
            if attempt.result.is_finished:
                raise Conflict(
                    f"Attempt {attempt.number} of {attempt.bake_id} is {attempt.result}:"
                    " `neuro-flow restart` makes a new one."
                )
            try:
                owner = await self._owner(known)
            except NotFound as error:
                raise Conflict(f"{attempt.bake_id} cannot be started: {error.message}") from None
            return await self._submit(owner, known)

    async def start_next(
        self, known: Known, fence: Callable[[Connection], None] | None = None
    ) -> bool:
        """Submit the job that follows a dead one, or a schedule's first.

        An attempt that nobody can drive has failed, unless ``fence`` says that another server
        decides that. False where the attempt is another by now.
        Raises Unavailable and TooManyRequests: it is to be tried again.
        """
        attempt = known.attempt
        async with self._lock(attempt.id):
            again = await self._known(attempt.id)
            if again is None or again.attempt != attempt:
                return False
            try:
                if attempt.executor_id is None:
                    await self._check_schedule(known)
                await self._submit(await self._owner(known), known)
            except (Unavailable, TooManyRequests, LeaseLost):
                raise
            except PlatformError as error:
                message = f"Its main job cannot be started: {error.message}"
                await self._attempts.change(
                    attempt.id, result=TaskStatus.FAILED, message=message, fence=fence
                )
            return True

    async def adopt(self, attempt_id: str, record: JobRecord) -> None:
        """Let an attempt have the main job that its submitter started without the server's help.

        It would say so itself, and may die before it has.
        """
        with contextlib.suppress(PlatformError):
            owner = await self._access.identity_of(record.owner)
            async with self._lock(attempt_id):
                attempt = await self._attempts.attempt(owner, attempt_id, Action.WRITE)
                known = await self._known(attempt_id)
                is_owners = known is not None and _owner_of(known) == record.owner
                if attempt.executor_id is None and is_owners:
                    await self._attempts.change(attempt_id, executor_id=record.id)

    async def _known(self, attempt_id: str) -> Known | None:
        return await self._database.read(partial(records.known, attempt_id=attempt_id))

    async def _owner(self, known: Known) -> Identity:
        """The user in whose name a bake is driven. Raises NotFound for a removed one."""
        owner = _owner_of(known)
        try:
            return await self._access.identity_of(owner)
        except NotFound:
            raise NotFound(f"its owner {owner} was removed.") from None

    async def _check_schedule(self, known: Known) -> None:
        """Raise NotFound where the schedule that made a bake was removed before its beginning."""
        owner = await self._database.read(
            partial(
                schedules.owner_of,
                schedule_id=known.bake.meta.schedule or "",
                project_id=known.project.id,
            )
        )
        if owner is None:
            raise NotFound("its schedule was removed.")

    async def _submit(self, owner: Identity, known: Known) -> Job:
        attempt = known.attempt
        request = main_jobs.request(known.project, known.bake)
        key = main_jobs.key_of(attempt)
        submitted = await self._jobs.submit(owner, request, key, control=True)
        await self._attempts.change(attempt.id, executor_id=submitted.job.id)
        return submitted.job

    def _lock(self, attempt_id: str) -> asyncio.Lock:
        return self._locks.setdefault(attempt_id, asyncio.Lock())


def _owner_of(known: Known) -> str:
    # Bakes of long ago have no owner of their own.
    return known.bake.owner or known.project.owner
