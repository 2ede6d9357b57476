"""Doing what the state of a bake asks for, and telling it the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from neuro.client.job_request import Where
from neuro.domain.bakes import BakeChange, Graphs, TaskRequest, TaskStatus
from neuro.domain.errors import (
    InvalidInput,
    NoSuchJob,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    PlatformError,
    TooLarge,
    TooManyRequests,
)
from neuro.domain.jobs import Job, JobState
from neuro.flow.batch.commands import CommandReader
from neuro.flow.batch.errands import Errands
from neuro.flow.batch.image_builds import Definition, ImageBuilds
from neuro.flow.batch.instructions import (
    Finish,
    Instruction,
    Kill,
    LookUp,
    ReadLog,
    Redraw,
    SaveRecord,
    Submit,
)
from neuro.flow.batch.patience import Patience
from neuro.flow.batch.records import Records
from neuro.flow.batch.requests import attempt_tag, job_request, submission_key
from neuro.flow.batch.state import BakeState
from neuro.flow.batch.wording import told
from neuro.flow.model import FullId, join_id

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.domain.bakes import Attempt, BakeImage
    from neuro.flow.batch.stored import BriefBake

Log = Callable[[str], None]

SUBMISSIONS_AT_ONCE = 8
CALLS_AT_ONCE = 8
LOGS_AT_ONCE = 8
# Timers far away are looked at again: the loop's clock and the time of day drift apart.
LONGEST_SLEEP = 3600.0


class Effects:
    """See the module's docstring. ``finished`` is called when the attempt is at its end.

    ``images`` are those that have a context to be built from, and ``definition`` finds what the
    bake's files say of one.
    """

    def __init__(
        self,
        client: Client,
        bake: BriefBake,
        attempt: Attempt,
        state: BakeState,
        *,
        records: Records,
        patience: Patience,
        errands: Errands,
        images: Iterable[BakeImage],
        definition: Definition,
        finished: Callable[[Finish], None],
        log: Log,
    ) -> None:
        self._client = client
        self._bake = bake
        self._attempt = attempt
        self._state = state
        self._records = records
        self._patience = patience
        self._errands = errands
        self._images = ImageBuilds(
            client,
            attempt.id,
            images,
            definition,
            tags=[f"bake_id:{bake.id}", attempt_tag(attempt.number)],
            patience=patience,
            kill=lambda job_id: errands.owe(self._kill(job_id)),
            log=log,
        )
        # Submissions that wait for an image: by the task and its try.
        self._waiting: dict[tuple[FullId, int], tuple[Submit, asyncio.Task[str | None]]] = {}
        self._finished = finished
        self._log = log
        # Of their own: one that waits for room among the jobs must not hold up the end of others.
        self._submissions = asyncio.Semaphore(SUBMISSIONS_AT_ONCE)
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._logs = asyncio.Semaphore(LOGS_AT_ONCE)
        self._timer: asyncio.TimerHandle | None = None
        # Graphs that were not known at the submission, and are still to be told.
        self._drawn: Graphs = {}
        self._redrawing: asyncio.Task[None] | None = None

    def act(self) -> None:
        """Begin all that the state has asked for since the last time."""
        for action in self._state.take():
            self._do(action)
        for submission, waiting in [*self._waiting.values()]:
            if not self._state.wants(submission):
                waiting.cancel()
        self.sleep()
        moment = self._state.next_wake
        if moment is not None and not self._state.is_over:
            delay = max(0.0, (moment - time_now()).total_seconds())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(delay, LONGEST_SLEEP), self._woken)

    def sleep(self) -> None:
        """Wake the state no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_strays(self) -> None:
        """End the jobs that a lost executor made and that nobody waits for."""
        for job_id in self._state.stray_jobs(attempt_tag(self._attempt.number)):
            self._errands.owe(self._kill(job_id))

    def find(self, job_id: str) -> None:
        """Find out about a job of a record that no stream tells of."""
        self._errands.start(self._find(job_id))

    def _woken(self) -> None:
        self._timer = None
        self._state.wake(time_now())
        self.act()

    def _do(self, instruction: Instruction) -> None:
        match instruction:
            case SaveRecord(request):
                self._records.add(request)
                self._tell(request)
            case Submit():
                self._errands.start(self._submit(instruction))
            case LookUp():
                self._errands.start(self._look_up(instruction))
            case ReadLog():
                self._errands.start(self._read(instruction))
            case Kill(job_id):
                self._errands.owe(self._kill(job_id))
            case Redraw(prefix, graph):
                self._redraw(prefix, graph)
            case Finish():
                self._finished(instruction)

    def _tell(self, request: TaskRequest) -> None:
        status = request.statuses[-1].status
        job = f" ({request.raw_id})" if request.raw_id and status is TaskStatus.PENDING else ""
        why = f": {request.message}" if request.message else ""
        self._log(f"Task {request.yaml_id} {told(status)}{job}{why}")

    async def _submit(self, action: Submit) -> None:
        # Before its turn: others need not wait for the image.
        refusal = await self._why_no_image(action)
        if refusal is not None:
            self._state.refused(action.id, action.number, refusal, time_now())
            self.act()
            return
        async with self._submissions:
            try:
                made = await self._make_job(action)
            except NotAuthenticated:
                raise
            except (PlatformError, ValueError) as error:
                self._state.refused(action.id, action.number, str(error), time_now())
            else:
                if made is None:
                    self._state.unsent(action.id, action.number, time_now())
                else:
                    self._state.submitted(action.id, action.number, _state_of(made), time_now())
        self.act()

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

        return await self._patience(submit)

    async def _why_no_image(self, action: Submit) -> str | None:
        """Wait for the image of a task; why there will be none. None too if nobody wants it."""
        if not self._images.knows(action.task.image):
            return None
        key = action.id, action.number
        waiting = asyncio.create_task(self._images.ready(action.task.image))
        self._waiting[key] = action, waiting
        try:
            await asyncio.wait({waiting})
        finally:
            waiting.cancel()  # Of an executor that ends.
            self._waiting.pop(key, None)
        return None if waiting.cancelled() else waiting.result()

    async def _look_up(self, action: LookUp) -> None:
        bakes, bake, id = self._client.bakes, self._bake, join_id(action.id)
        async with self._calls:
            entry = await self._patience(
                lambda: bakes.cache_entry(bake.project_id, bake.batch, id, action.key)
            )
        found = self._state.cached(action.id, entry, time_now()) if entry is not None else None
        if found is not None:
            await self._records.write(found)
            self._tell(found)
        self._state.looked_up(action.id, found, time_now())
        self.act()

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
            action.id, action.number, reader.outputs, reader.state, reader.problem, time_now()
        )
        self.act()

    async def _kill(self, job_id: str) -> None:
        async with self._calls:
            try:
                await self._patience(lambda: self._client.jobs.kill(job_id))
            except NoSuchJob:
                self._state.job_gone(job_id, time_now())
                self.act()
            except (InvalidInput, NotFound, NotPermitted) as error:
                # Whoever may show us a job may have given it our tags.
                self._log(f"Job {job_id} could not be ended: {error}")

    def _redraw(self, prefix: FullId, graph: Mapping[FullId, tuple[FullId, ...]]) -> None:
        """Let others see a graph that was not known when the bake was submitted."""
        wire = {join_id(id): [join_id(need) for need in needs] for id, needs in graph.items()}
        self._drawn[join_id(prefix)] = wire
        if self._redrawing is None or self._redrawing.done():
            self._redrawing = self._errands.owe(self._send_graphs())

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

    async def _find(self, job_id: str) -> None:
        try:
            job = await self._patience(lambda: self._client.jobs.get(job_id))
        except (NoSuchJob, NotFound):
            self._state.job_gone(job_id, time_now())
        else:
            self._state.job_changed(_state_of(job), time_now())
        self.act()


_BEGAN = datetime.now(UTC), time.monotonic()


def time_now() -> datetime:
    """The time for the state: when this process began, and the monotonic time since.

    Setting the machine's clock does not move timers.
    """
    began, ticks = _BEGAN
    return began + timedelta(seconds=time.monotonic() - ticks)


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
