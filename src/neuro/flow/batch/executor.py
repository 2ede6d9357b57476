"""Drives an attempt of a bake: does what its state asks for, and tells the state what happens.

There is no polling: two streams of events report changes of the jobs and of the attempt, a timer
wakes the state when it asked for that, and each call that the state wants made is a task of the
event loop. Whatever fails because the server is away is repeated until it works; whatever was not
recorded when a process of an executor died is derived again by the next one (see ``records``).

Several executors of one attempt do no harm: a submission is made under a key, so both have the same
job, and what has ended in the records stays. One that sees that another has taken over, or that
the attempt was ended by somebody else than its user, stops and leaves everything as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neuro.domain.bakes import Attempt, AttemptRequest, BakeImage, Task, TaskStatus
from neuro.domain.errors import NotFound, NotPermitted, PlatformError
from neuro.domain.jobs import JobState
from neuro.flow.batch.effects import Effects, Log, time_now
from neuro.flow.batch.errands import Errands
from neuro.flow.batch.instructions import Finish
from neuro.flow.batch.patience import Patience, Pauses, is_passing
from neuro.flow.batch.records import Records
from neuro.flow.batch.state import BakeState
from neuro.flow.batch.stored import BriefBake, brief_bake, is_foreign, stored_workflow
from neuro.flow.batch.wording import told
from neuro.flow.model import Workflow
from neuro.flow.problems import FlowError

if TYPE_CHECKING:
    from neuro.client import Client

# How long a new main job waits to be told that it is the one, where another is named.
HANDOVER_SECONDS = 60.0


async def drive(client: Client, bake_id: str, *, executor_id: str | None, log: Log) -> TaskStatus:
    """Drive the last attempt of a bake to its end, and return how it ended.

    ``executor_id`` is the job that this process is; None in somebody's terminal. Raises NotFound
    for an unknown bake, NotPermitted for somebody else's. An attempt that another executor drives
    is left to it; what is returned is then how far it has come.
    """
    return await _Driver(client, executor_id, log).run(bake_id)


class _Driver:
    def __init__(self, client: Client, executor_id: str | None, log: Log) -> None:
        self._client = client
        self._executor_id = executor_id
        self._log = log
        self._patience = Patience(log)
        self._records = Records(client.bakes.put_tasks, self._patience, log)
        self._errands = Errands(self._failed)
        self._ended: asyncio.Future[TaskStatus | Finish] = (
            asyncio.get_running_loop().create_future()
        )
        self._is_resuming = False
        self._ahead: list[str] = []
        self._is_synced = asyncio.Event()
        self._news = asyncio.Event()
        self._jobs_synced = asyncio.Event()
        # Changes of jobs that arrive before the state has begun.
        self._early: dict[str, JobState] = {}
        self._driving: tuple[BakeState, Effects] | None = None
        self._bake: BriefBake
        self._attempt: Attempt
        self._writing: asyncio.Task[None]

    # From the beginning to the end.

    async def run(self, bake_id: str) -> TaskStatus:
        self._bake = await self._patience(lambda: brief_bake(self._client, bake_id))
        if is_foreign(self._client, self._bake):
            raise NotPermitted(
                f"Bake {bake_id} belongs to {self._bake.owner}, and this would drive it with"
                f" the rights of {self._client.user}: `neuro-flow restart` starts a main job"
                " for it."
            )
        last = self._bake.last_attempt
        if last is None:
            raise NotFound(f"Bake {bake_id} has no attempt: it was not submitted to the end.")
        self._attempt = last
        try:
            return await self._run()
        finally:
            if self._driving is not None:
                self._driving[1].sleep()
            await self._errands.close()

    async def _run(self) -> TaskStatus:
        result = self._attempt.result
        if result is not TaskStatus.PENDING:
            self._is_resuming = any(not task.status.is_finished for task in await self._stored())
        if result.is_finished and not (result is TaskStatus.CANCELLED and self._is_resuming):
            self._log(f"Attempt #{self._attempt.number} {told(result)} already.")
            return result
        self._errands.start(self._follow_bake())
        self._writing = self._errands.start(self._records.run())
        begun = self._errands.start(self._begin())
        ended = await self._ended
        begun.cancel()
        if isinstance(ended, Finish):
            return await self._finish(ended)
        return ended

    async def _stored(self) -> list[Task]:
        return await self._patience(lambda: self._client.bakes.tasks(self._attempt.id))

    async def _begin(self) -> None:
        if not await self._is_the_one():
            return
        if self._attempt.result is TaskStatus.PENDING:
            await self._turn()
            await self._write_attempt(TaskStatus.RUNNING)
            self._log(f"Attempt #{self._attempt.number} of {self._name} has begun.")
        elif not self._attempt.result.is_finished:
            if self._attempt.executor_id != self._executor_id:
                # Begun by somebody's local part, in another client.
                await self._write_attempt(TaskStatus.RUNNING)
            self._log(f"Attempt #{self._attempt.number} of {self._name} goes on.")
        if self._ended.done():
            return
        self._errands.start(self._follow_jobs())
        try:
            (workflow, state), images = await asyncio.gather(self._load(), self._images())
        except FlowError as error:
            self._end(Finish(TaskStatus.FAILED, f"Its files cannot be read: {error}"))
            return
        effects = Effects(
            self._client,
            self._bake,
            self._attempt,
            state,
            records=self._records,
            patience=self._patience,
            errands=self._errands,
            images=images,
            definition=workflow.image,
            finished=self._end,
            log=self._log,
        )
        # What ended meanwhile may change what is to be started.
        await self._jobs_synced.wait()
        self._start(state, effects)

    async def _load(self) -> tuple[Workflow, BakeState]:
        """The workflow, and its state as the records have it. Raises FlowError."""
        workflow, tasks = await asyncio.gather(
            stored_workflow(self._client, self._bake, self._attempt, self._patience),
            self._stored(),
        )
        life_span = self._bake.meta.life_span
        state = BakeState(
            workflow,
            self._attempt.id,
            tasks,
            life_span=timedelta(seconds=life_span) if life_span else None,
            began=_begin_of(self._attempt, tasks),
        )
        return workflow, state

    async def _images(self) -> list[BakeImage]:
        """The images of the bake, as far as their builds have come."""
        return await self._patience(lambda: self._client.bakes.images(self._bake.id))

    def _start(self, state: BakeState, effects: Effects) -> None:
        if self._attempt.result is TaskStatus.CANCELLED:
            state.cancel(time_now(), self._attempt.message)
        try:
            state.start(time_now())
        except FlowError as error:
            self._end(Finish(TaskStatus.FAILED, f"Its graph cannot be made: {error}"))
            return
        known, self._early = self._early, {}
        for job in known.values():
            state.job_changed(job, time_now())
        for job_id in state.active_jobs():
            if job_id not in known:
                effects.find(job_id)
        self._driving = state, effects
        effects.act()

    async def _finish(self, finish: Finish) -> TaskStatus:
        """Write how the attempt ended, once all of it is kept."""
        if self._driving is not None:
            self._driving[1].end_strays()
        await self._settle()
        if self._is_foreign(self._attempt):
            return self._attempt.result
        await self._write_attempt(finish.result, finish.message)
        self._log(
            f"Attempt #{self._attempt.number} of {self._name} {told(self._attempt.result)}."
            + (f" {self._attempt.message}" if self._attempt.message else "")
        )
        return self._attempt.result

    async def _settle(self) -> None:
        """Wait until all is kept; raise what keeps the records from being written."""

        async def settle() -> None:
            await self._errands.settle()
            await self._records.flush()

        work = asyncio.ensure_future(settle())
        done, _ = await asyncio.wait({work, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        if work not in done:
            work.cancel()
            await self._writing
        await work

    @property
    def _name(self) -> str:
        return self._bake.name or self._bake.id

    # Whose turn it is.

    async def _is_the_one(self) -> bool:
        """Whether this executor is the attempt's; a new main job may be told so a moment late."""
        await self._is_synced.wait()
        if self._executor_id is None:
            if self._attempt.executor_id is not None:
                self._leave(f"Job {self._attempt.executor_id} drives the bake: nothing to do here.")
                return False
            return True
        try:
            async with asyncio.timeout(HANDOVER_SECONDS):
                while self._is_foreign(self._attempt):
                    await self._change()
        except TimeoutError:
            self._leave(f"Job {self._attempt.executor_id} drives the bake: nothing to do here.")
            return False
        return True

    async def _turn(self) -> None:
        """Wait until no bake of the same concurrency group is ahead."""
        told: list[str] = []
        while self._ahead and not self._ended.done():
            if self._ahead != told:
                told = self._ahead
                self._log(f"Waiting for {', '.join(told)} to end.")
            await self._change()

    async def _change(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _is_foreign(self, attempt: Attempt) -> bool:
        return attempt.executor_id is not None and attempt.executor_id != self._executor_id

    async def _write_attempt(self, result: TaskStatus, message: str | None = None) -> None:
        request = AttemptRequest(
            bake_id=self._bake.id,
            number=self._attempt.number,
            result=result,
            configs_meta=self._attempt.configs_meta,
            executor_id=self._executor_id,
            message=message,
        )
        kept = await self._patience(lambda: self._client.bakes.replace_attempt(request))
        self._attempt_changed(kept)

    def _leave(self, reason: str) -> None:
        self._log(reason)
        self._end(self._attempt.result)

    def _failed(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _end(self, how: TaskStatus | Finish) -> None:
        if not self._ended.done():
            self._ended.set_result(how)

    # Events.

    async def _follow_bake(self) -> None:
        number = self._attempt.number
        bakes = self._client.bakes

        async def listen() -> AsyncGenerator[None]:
            stream = bakes.events(self._bake.id, number, tasks=False, executor=True)
            async with aclosing(stream) as events:
                async for event in events:
                    if event.ahead is not None:
                        self._ahead = event.ahead
                    if event.attempt is not None:
                        self._attempt_changed(event.attempt)
                    if event.synced:
                        self._is_synced.set()
                    self._news.set()
                    yield

        await self._listen(listen)

    def _attempt_changed(self, attempt: Attempt) -> None:
        # An answer and an event may cross: what has ended stays so.
        if self._attempt.result.is_finished and not attempt.result.is_finished:
            return
        before, self._attempt = self._attempt, attempt
        if self._ended.done():
            return
        taken_over = not self._is_foreign(before) and self._is_foreign(attempt)
        if taken_over:
            self._leave(f"Job {attempt.executor_id} drives the bake now: nothing to do here.")
        elif attempt.result is TaskStatus.CANCELLED:
            self._cancelled(attempt)
        elif attempt.result.is_finished:
            self._leave(f"Attempt #{attempt.number} was ended: {attempt.result.value}.")

    def _cancelled(self, attempt: Attempt) -> None:
        if self._driving is not None:
            state, effects = self._driving
            if not state.is_cancelling:
                self._log("The bake is being cancelled.")
            state.cancel(time_now(), attempt.message)
            effects.act()
        elif not self._is_resuming:
            self._leave(f"Attempt #{attempt.number} was cancelled before it began.")

    async def _follow_jobs(self) -> None:
        cursor: str | None = None

        async def listen() -> AsyncGenerator[None]:
            nonlocal cursor
            stream = self._client.jobs.events(tags=[f"bake_id:{self._bake.id}"], after=cursor)
            async with aclosing(stream) as events:
                async for event in events:
                    if event.job is not None:
                        self._job_changed(event.job)
                    if event.cursor:
                        cursor = event.cursor
                    if event.synced:
                        self._jobs_synced.set()
                    yield

        await self._listen(listen)

    def _job_changed(self, job: JobState) -> None:
        if self._driving is None:
            self._early[job.id] = job
        elif not self._ended.done():
            state, effects = self._driving
            state.job_changed(job, time_now())
            effects.act()

    async def _listen(self, listen: Callable[[], AsyncGenerator[None]]) -> None:
        """Listen until cancelled; connect again when the connection is lost."""
        pauses = Pauses()
        while True:
            lost: PlatformError | None = None
            try:
                async with aclosing(listen()) as heard:
                    async for _ in heard:
                        self._patience.succeeded()
                        pauses.reset()
            except PlatformError as error:
                if not is_passing(error):
                    raise
                self._patience.failed(error)
                lost = error
            await pauses.wait(lost)


def _begin_of(attempt: Attempt, tasks: list[Task]) -> datetime | None:
    """When the first task of an attempt began; records that were copied are older."""
    times = (task.statuses[0].created_at for task in tasks if task.statuses)
    return min((time for time in times if time >= attempt.created_at), default=None)
