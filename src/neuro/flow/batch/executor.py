"""Drives an attempt of a bake: does what its state asks for, and tells the state what happens.

There is no polling: two streams of events say what becomes of the jobs and of the attempt, a timer
wakes the state when it asked for that, and each call that the state wants made is a task of the
event loop. Whatever fails because the server is away is repeated until it works; whatever was not
recorded when a process of an executor died is derived again by the next one (see ``records``).

Several executors of one attempt do no harm: a submission is made under a key, so both have the same
job, and what has ended in the records stays. One that sees that another has taken over, or that
the attempt was ended by somebody else than its user, stops and leaves everything as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from neuro.cli.job.request import Where
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    BakeChange,
    CacheEntryRequest,
    Graphs,
    Task,
    TaskRequest,
    TaskStatus,
)
from neuro.domain.errors import (
    InvalidInput,
    NoSuchJob,
    NotAuthenticated,
    NotFound,
    PlatformError,
    TooLarge,
    TooManyRequests,
)
from neuro.domain.jobs import Job, JobState
from neuro.flow.batch.actions import (
    Action,
    Finish,
    Kill,
    LookUp,
    ReadLog,
    Record,
    Redraw,
    Remember,
    Submit,
)
from neuro.flow.batch.commands import CommandReader
from neuro.flow.batch.model import FullId, Workflow, join_id
from neuro.flow.batch.patience import Patience, Pauses, is_passing
from neuro.flow.batch.records import Records
from neuro.flow.batch.requests import attempt_tag, job_request, submission_key
from neuro.flow.batch.state import BakeState
from neuro.flow.batch.stored import BriefBake, brief_bake, stored_workflow
from neuro.flow.syntax.problems import FlowError

if TYPE_CHECKING:
    from neuro.client import Client

Log = Callable[[str], None]

SUBMISSIONS_AT_ONCE = 8
CALLS_AT_ONCE = 8
LOGS_AT_ONCE = 4
# How long a new main job waits to be told that it is the one, where another is named.
HANDOVER_SECONDS = 60.0
# Timers far away are looked at again: the loop's clock and the time of day drift apart.
LONGEST_SLEEP = 3600.0


async def drive(client: Client, bake_id: str, *, executor_id: str | None, log: Log) -> TaskStatus:
    """Drive the last attempt of a bake to its end, and return how it ended.

    ``executor_id`` is the job that this process is; None in somebody's terminal. Raises NotFound
    for an unknown bake. An attempt that another executor drives is left to it; what is returned is
    then how far it has come.
    """
    return await _Driver(client, executor_id, log).run(bake_id)


class _Driver:
    def __init__(self, client: Client, executor_id: str | None, log: Log) -> None:
        self._client = client
        self._executor_id = executor_id
        self._log = log
        self._patience = Patience(log)
        self._records = Records(client.bakes.put_tasks, self._patience, log)
        # Of their own: one that waits for room among the jobs must not hold up the end of others.
        self._submissions = asyncio.Semaphore(SUBMISSIONS_AT_ONCE)
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._logs = asyncio.Semaphore(LOGS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        # Calls that must have been answered before the attempt can end.
        self._owed: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[TaskStatus | Finish] = (
            asyncio.get_running_loop().create_future()
        )
        self._timer: asyncio.TimerHandle | None = None
        self._is_driving = False
        self._is_resuming = False
        self._ahead: list[str] = []
        self._is_synced = asyncio.Event()
        self._news = asyncio.Event()
        self._warned_images: set[str] = set()
        self._images: set[str] = set()
        # Graphs that were not known at the submission, and are still to be told.
        self._drawn: Graphs = {}
        self._redrawing: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        # Until the state has begun, what is told of jobs waits here.
        self._early: dict[str, JobState] | None = {}
        self._jobs_synced = asyncio.Event()
        self._bake: BriefBake
        self._attempt: Attempt
        self._workflow: Workflow
        self._state: BakeState

    # From the beginning to the end.

    async def run(self, bake_id: str) -> TaskStatus:
        self._bake = await self._patience(lambda: brief_bake(self._client, bake_id))
        last = self._bake.last_attempt
        if last is None:
            raise NotFound(f"Bake {bake_id} has no attempt: it was not submitted to the end.")
        self._attempt = last
        try:
            return await self._run()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> TaskStatus:
        result = self._attempt.result
        if result is not TaskStatus.PENDING:
            self._is_resuming = any(not task.status.is_finished for task in await self._stored())
        if result.is_finished and not (result is TaskStatus.CANCELLED and self._is_resuming):
            self._log(f"Attempt #{self._attempt.number} is {result.value} already.")
            return result
        self._spawn(self._follow_bake())
        self._writing = self._spawn(self._records.run())
        begun = self._spawn(self._begin())
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
            self._log(f"Attempt #{self._attempt.number} of {self._name} goes on.")
        if self._ended.done():
            return
        try:
            self._workflow = await stored_workflow(
                self._client, self._bake, self._attempt, self._patience
            )
        except FlowError as error:
            self._end(Finish(TaskStatus.FAILED, f"Its files cannot be read: {error}"))
            return
        images = await self._patience(lambda: self._client.bakes.images(self._bake.id))
        self._images = {image.ref for image in images if image.context_on_storage}
        tasks = await self._stored()
        life_span = self._bake.meta.life_span
        self._state = BakeState(
            self._workflow,
            self._attempt.id,
            tasks,
            life_span=timedelta(seconds=life_span) if life_span else None,
        )
        self._spawn(self._follow_jobs())
        await self._jobs_synced.wait()
        self._start(_begin_of(self._attempt, tasks))

    def _start(self, began: datetime | None) -> None:
        known, self._early = self._early or {}, None
        self._is_driving = True
        if self._attempt.result is TaskStatus.CANCELLED:
            self._state.cancel(_now(), self._attempt.message)
        try:
            self._state.start(_now(), began)
        except FlowError as error:
            self._end(Finish(TaskStatus.FAILED, f"Its graph cannot be made: {error}"))
            return
        for job in known.values():
            self._state.job_changed(job, _now())
        lost = [job_id for job_id in self._state.active_jobs() if job_id not in known]
        for job_id in lost:
            self._spawn(self._find_lost(job_id))
        self._act()

    async def _finish(self, finish: Finish) -> TaskStatus:
        """Write how the attempt ended, once all of it is kept."""
        if self._is_driving:
            for job_id in self._state.stray_jobs(attempt_tag(self._attempt.number)):
                self._owe(self._kill(job_id))
        while self._owed:
            await asyncio.gather(*self._owed)
        await self._flush()
        if self._is_foreign(self._attempt):
            return self._attempt.result
        await self._write_attempt(finish.result, finish.message)
        self._log(
            f"Attempt #{self._attempt.number} of {self._name} {_PAST[self._attempt.result]}."
            + (f" {self._attempt.message}" if self._attempt.message else "")
        )
        return self._attempt.result

    async def _flush(self) -> None:
        """Wait for the records; raise what keeps them from being written."""
        assert self._writing is not None
        flush = asyncio.ensure_future(self._records.flush())
        done, _ = await asyncio.wait({flush, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        if flush not in done:
            flush.cancel()
            await self._writing
        await flush

    @property
    def _name(self) -> str:
        return self._bake.name or self._bake.id

    # Whose turn it is.

    async def _is_the_one(self) -> bool:
        """Whether this executor is the attempt's; a new main job may be told so a moment late."""
        await self._is_synced.wait()
        if self._executor_id is None:
            if self._attempt.executor_id is not None:
                self._leave(f"Job {self._attempt.executor_id} drives the bake: it is left to that.")
                return False
            return True
        try:
            async with asyncio.timeout(HANDOVER_SECONDS):
                while self._is_foreign(self._attempt):
                    await self._change()
        except TimeoutError:
            self._leave(f"Job {self._attempt.executor_id} drives the bake: it is left to that.")
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

    def _end(self, how: TaskStatus | Finish) -> None:
        if not self._ended.done():
            self._ended.set_result(how)

    # What is heard.

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
            self._leave(f"Job {attempt.executor_id} drives the bake now: it is left to that.")
        elif attempt.result is TaskStatus.CANCELLED:
            self._cancelled(attempt)
        elif attempt.result.is_finished:
            self._leave(f"Attempt #{attempt.number} was ended: {attempt.result.value}.")

    def _cancelled(self, attempt: Attempt) -> None:
        if self._is_driving:
            if not self._state.is_cancelling:
                self._log("The bake is being cancelled.")
            self._state.cancel(_now(), attempt.message)
            self._act()
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
        if self._early is not None:
            self._early[job.id] = job
        elif not self._ended.done():
            self._state.job_changed(job, _now())
            self._act()

    async def _listen(self, listen: Callable[[], AsyncGenerator[None]]) -> None:
        """Listen for ever; come back when the connection is lost."""
        pauses = Pauses()
        while True:
            try:
                async with aclosing(listen()) as heard:
                    async for _ in heard:
                        self._patience.succeeded()
                        pauses.reset()
            except PlatformError as error:
                if not is_passing(error):
                    raise
                self._patience.failed(error)
            await pauses.wait()

    def _woken(self) -> None:
        self._timer = None
        if self._is_driving and not self._ended.done():
            self._state.wake(_now())
            self._act()

    # What is done.

    def _act(self) -> None:
        for action in self._state.take():
            self._do(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moment = self._state.next_wake
        if moment is not None and not self._ended.done():
            delay = max(0.0, (moment - _now()).total_seconds())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(delay, LONGEST_SLEEP), self._woken)

    def _do(self, action: Action) -> None:
        match action:
            case Record(request):
                self._records.add(request)
                self._tell(request)
            case Submit():
                self._spawn(self._submit(action))
            case LookUp():
                self._spawn(self._look_up(action))
            case ReadLog():
                self._spawn(self._read(action))
            case Kill(job_id):
                self._owe(self._kill(job_id))
            case Remember():
                self._owe(self._remember(action))
            case Redraw(prefix, graph):
                self._redraw(prefix, graph)
            case Finish():
                self._end(action)

    def _tell(self, request: TaskRequest) -> None:
        status = request.statuses[-1].status.value
        job = f" ({request.raw_id})" if request.raw_id and status == "pending" else ""
        why = f": {request.message}" if request.message else ""
        self._log(f"Task {request.yaml_id} is {status}{job}{why}")

    async def _submit(self, action: Submit) -> None:
        async with self._submissions:
            try:
                made = await self._make_job(action)
            except NotAuthenticated:
                raise
            except (PlatformError, ValueError) as error:
                self._state.refused(action.id, action.number, str(error), _now())
            else:
                if made is None:
                    self._state.unsent(action.id, action.number, _now())
                else:
                    self._state.submitted(action.id, action.number, _state_of(made), _now())
        self._act()

    async def _make_job(self, action: Submit) -> Job | None:
        """Submit a try; None where it is not wanted any more and certainly no job."""
        client, task = self._client, action.task
        key = submission_key(self._attempt.id, action.id, action.number)
        tag = attempt_tag(self._attempt.number)
        request = job_request(task, Where(client.cluster, client.user), tag)
        may_be_there = False

        async def submit() -> Job | None:
            nonlocal may_be_there
            if not may_be_there and not self._state.wants(action):
                return None
            try:
                return (await client.jobs.submit(request, key)).job
            except TooManyRequests:
                raise
            except PlatformError:
                may_be_there = True
                raise

        self._warn_of_image(task.image)
        return await self._patience(submit)

    def _warn_of_image(self, image: str) -> None:
        ref = image.removeprefix("image:")
        for known in (image, ref, f"image:{ref}"):
            if known in self._images and known not in self._warned_images:
                self._warned_images.add(known)
                self._log(
                    f"Image {known} has a context, and this platform builds no images yet: its"
                    " tasks are started all the same."
                )

    async def _look_up(self, action: LookUp) -> None:
        bakes, bake, id = self._client.bakes, self._bake, join_id(action.id)
        async with self._calls:
            entry = await self._patience(
                lambda: bakes.cache_entry(bake.project_id, bake.batch, id, action.key)
            )
        found = self._state.cached(action.id, entry, _now()) if entry is not None else None
        if found is not None:
            await self._records.write(found)
            self._tell(found)
        self._state.looked_up(action.id, found, _now())
        self._act()

    async def _read(self, action: ReadLog) -> None:
        """Read a job's output; from its beginning again where the connection is lost."""

        async def whole() -> CommandReader:
            reader = CommandReader()
            async with aclosing(self._client.jobs.logs(action.job_id)) as chunks:
                async for chunk in chunks:
                    reader.feed(chunk)
            reader.close()
            return reader

        async with self._logs:
            try:
                reader = await self._patience(whole)
            except (InvalidInput, NotFound) as error:
                reader = CommandReader()
                reader.problem = f"Its output cannot be read: {error}"
        for warning in reader.warnings:
            self._log(f"Task {join_id(action.id)}: {warning}")
        self._state.log_read(
            action.id, action.number, reader.outputs, reader.state, reader.problem, _now()
        )
        self._act()

    async def _kill(self, job_id: str) -> None:
        async with self._calls:
            try:
                await self._patience(lambda: self._client.jobs.kill(job_id))
            except NoSuchJob:
                self._state.job_gone(job_id, _now())
                self._act()
            except (InvalidInput, NotFound) as error:
                self._log(f"Job {job_id} could not be ended: {error}")

    async def _remember(self, action: Remember) -> None:
        request = CacheEntryRequest(
            project_id=self._bake.project_id,
            batch=self._bake.batch,
            task_id=join_id(action.id),
            key=action.key,
            raw_id=action.job_id,
            outputs=dict(action.outputs),
            state=dict(action.state),
        )
        await self._records.flush(hurry=False)
        async with self._calls:
            try:
                await self._patience(lambda: self._client.bakes.add_cache_entry(request))
            except InvalidInput as error:
                self._log(f"The outcome of {request.task_id} cannot be kept: {error}")

    def _redraw(self, prefix: FullId, graph: Any) -> None:
        """Let others see a graph that was not known when the bake was submitted."""
        wire = {join_id(id): [join_id(need) for need in needs] for id, needs in graph.items()}
        self._drawn[join_id(prefix)] = wire
        if self._redrawing is None or self._redrawing.done():
            self._redrawing = self._owe(self._send_graphs())

    async def _send_graphs(self) -> None:
        bakes, bake_id = self._client.bakes, self._bake.id
        while self._drawn:
            drawn, self._drawn = self._drawn, {}
            known = (await self._patience(lambda: bakes.get(bake_id))).graphs
            if all(known.get(prefix) == graph for prefix, graph in drawn.items()):
                continue
            await self._send_graph(BakeChange(graphs={**known, **drawn}))

    async def _send_graph(self, change: BakeChange) -> None:
        try:
            await self._patience(lambda: self._client.bakes.change(self._bake.id, change))
        except (InvalidInput, TooLarge) as error:
            self._log(f"The bake's graph cannot be shown: {error}")

    async def _find_lost(self, job_id: str) -> None:
        """A job of a record that no stream tells of."""
        try:
            job = await self._patience(lambda: self._client.jobs.get(job_id))
        except (NoSuchJob, NotFound):
            self._state.job_gone(job_id, _now())
        else:
            self._state.job_changed(_state_of(job), _now())
        self._act()

    # Tasks of the event loop.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _owe(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._spawn(work)
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._ended.done():
            return
        error = task.exception()
        if error is not None:
            self._ended.set_exception(error)


_PAST = {
    TaskStatus.SUCCEEDED: "has succeeded",
    TaskStatus.FAILED: "has failed",
    TaskStatus.CANCELLED: "was cancelled",
}


def _now() -> datetime:
    return datetime.now(UTC)


def _begin_of(attempt: Attempt, tasks: list[Task]) -> datetime | None:
    """When the first task of an attempt began; records that were copied are older."""
    times = (task.statuses[0].created_at for task in tasks if task.statuses)
    return min((time for time in times if time >= attempt.created_at), default=None)


def _state_of(job: Job) -> JobState:
    history = job.history
    return JobState(
        id=job.id,
        status=job.status,
        created_at=history.created_at,
        reason=history.reason,
        description=history.description,
        exit_code=history.exit_code,
        started_at=history.started_at,
        finished_at=history.finished_at,
        tags=job.tags,
    )
