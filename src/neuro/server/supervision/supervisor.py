"""Looks after every attempt that is not over: takes decisions, and does what they say.

Whatever happens (an attempt changes, a job ends, a time comes) only says *which* attempt to look
at. A look reads the database, so it may come late, twice or after a restart of the server, and
what was to be done is done. Signs of life and deaths alone are in memory: they are counted from
the start of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, Bake, TaskStatus
from neuro.domain.errors import Damaged, TooManyRequests, Unavailable
from neuro.domain.jobs import Reason
from neuro.server.background import Background, Kept
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.bakes.events import Hub, Observer
from neuro.server.bakes.tasks.tables import open_tasks_of
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService
from neuro.server.supervision import main_jobs, records
from neuro.server.supervision.decisions import (
    CleanUp,
    Executor,
    Facts,
    Finish,
    Limits,
    StartMainJob,
    Wait,
    decide,
)
from neuro.server.supervision.records import Known, Progress
from neuro.server.supervision.starter import Starter
from neuro.server.supervision.turns import AttemptTurns, Turn

log = structlog.get_logger("neuro.bakes")

# After a look that failed: the database was away, or the queue of jobs is full.
RETRY_SECONDS = 5.0


@dataclass(slots=True)
class Watch:
    """The state kept of an attempt between two checks; times are the event loop's."""

    bake_id: str
    heard_at: float
    executor_id: str | None = None
    had_stream: bool = False
    dead_job: str | None = None
    progress: Progress | None = None
    died_at: float = 0.0
    deaths: int = 0
    timer: asyncio.TimerHandle | None = None


class Supervisor(Observer):
    """One for all bakes; everything happens on the event loop."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        board: Board,
        jobs: JobService,
        attempts: AttemptService,
        starter: Starter,
        limits: Limits,
        background: Background,
    ) -> None:
        self._database = database
        self._hub = hub
        self._board = board
        self._jobs = jobs
        self._attempts = attempts
        self._starter = starter
        self._limits = limits
        self._turns = AttemptTurns()
        self._watches: dict[str, Watch] = {}
        self._attempt_of_job: dict[str, str] = {}
        # Unfinished attempts that name no executor, by their bakes.
        self._undriven: dict[str, str] = {}
        # In the order in which they are to be looked at; a dict, so that each is there once.
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._background = background
        self._looking: Kept | None = None
        self._errands = background.errands("supervision of bakes")

    async def start(self) -> None:
        """Take over what there is, and begin."""
        self._hub.observe(self)
        self._board.listen(self._job_changed)
        bakes_at_work = {
            tag.partition(":")[2]
            for record in self._board
            for tag in record.specification.tags
            if tag.startswith(main_jobs.tag_of(""))
        }
        found = await self._database.read(partial(records.to_watch, bake_ids=bakes_at_work))
        for attempt, bake in found:
            self.attempt_created(bake, attempt)
        self._errands.begin(self._end_stranded())
        self._looking = self._background.keep("supervision of bakes", self._run)

    async def close(self) -> None:
        """Stop; bakes go on."""
        for watch in self._watches.values():
            if watch.timer is not None:
                watch.timer.cancel()
        if self._looking is not None:
            await self._looking.stop()
        await self._errands.stop()

    # Events.

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        """Watch it, and find out whose turn it is."""
        self._watch(attempt)
        self._look_soon(attempt.id)
        concurrency = bake.meta.concurrency
        if concurrency is not None and not attempt.result.is_finished:
            turn = Turn(
                attempt_id=attempt.id,
                bake_id=bake.id,
                project_id=bake.project_id,
                group=concurrency.group,
                cancels=concurrency.cancel_running,
            )
            self._turns.enter(turn)
            self._tell_ahead(turn)

    def attempt_changed(self, before: Attempt, after: Attempt) -> None:
        """Look at it, and let the next of its group have their turn once it is over."""
        watch = self._watch(after)
        if after.result is TaskStatus.RUNNING and before.result is not TaskStatus.RUNNING:
            watch.heard_at = _now()
        if after.result.is_finished:
            self._leave(after.id)
        self._look_soon(after.id)

    def executor_attached(self, attempt: Attempt) -> None:
        """Its terminal's executor is there, for as long as the stream is open."""
        watch = self._watches.get(attempt.id)
        if watch is not None:
            watch.heard_at = _now()
            watch.had_stream = True

    def executor_detached(self, attempt: Attempt) -> None:
        """From now on its silence counts."""
        self.attempt_touched(attempt.bake_id, attempt.id)
        self._look_soon(attempt.id)

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        """A sign of life."""
        watch = self._watches.get(attempt_id)
        if watch is not None:
            watch.heard_at = _now()

    def project_removed(self, project_id: str, unfinished: Sequence[Attempt]) -> None:
        """End all jobs of its bakes, those that drive them first of all."""
        for attempt in unfinished:
            self._drop(attempt.id)
            self._leave(attempt.id)
        self._errands.begin(self._end_bakes({attempt.bake_id for attempt in unfinished}))

    def _job_changed(self, record: JobRecord) -> None:
        if not record.is_active and record.id in self._attempt_of_job:
            self._look_soon(self._attempt_of_job[record.id])
        bake_id = main_jobs.bake_of(record)
        attempt_id = None if bake_id is None else self._undriven.get(bake_id)
        # Whoever starts the server's own bakes hands them over.
        if attempt_id is not None and not self._starter.is_at(attempt_id):
            self._errands.begin(self._starter.adopt(attempt_id, record))

    # Memory.

    def _watch(self, attempt: Attempt) -> Watch:
        watch = self._watches.get(attempt.id)
        if watch is None:
            watch = self._watches[attempt.id] = Watch(attempt.bake_id, _now())
        if watch.executor_id != attempt.executor_id:
            if watch.executor_id is not None:
                self._attempt_of_job.pop(watch.executor_id, None)
            if attempt.executor_id is not None:
                self._attempt_of_job[attempt.executor_id] = attempt.id
            watch.executor_id = attempt.executor_id
        if attempt.executor_id is None and not attempt.result.is_finished:
            self._undriven[attempt.bake_id] = attempt.id
        elif self._undriven.get(attempt.bake_id) == attempt.id:
            del self._undriven[attempt.bake_id]
        return watch

    def _drop(self, attempt_id: str) -> None:
        watch = self._watches.pop(attempt_id, None)
        if watch is None:
            return
        if watch.timer is not None:
            watch.timer.cancel()
        if watch.executor_id is not None:
            self._attempt_of_job.pop(watch.executor_id, None)
        if self._undriven.get(watch.bake_id) == attempt_id:
            del self._undriven[watch.bake_id]

    def _leave(self, attempt_id: str) -> None:
        turn = self._turns.of(attempt_id)
        if turn is not None:
            behind = self._turns.leave(attempt_id)
            self._hub.forget_ahead(turn.bake_id)
            for other in behind:
                self._tell_ahead(other)

    def _tell_ahead(self, turn: Turn) -> None:
        self._hub.set_ahead(turn.bake_id, [ahead.bake_id for ahead in self._turns.ahead(turn)])

    # Looking.

    def _look_soon(self, attempt_id: str) -> None:
        self._due[attempt_id] = None
        self._wake.set()

    def _look_in(self, attempt_id: str, seconds: float) -> None:
        watch = self._watches.get(attempt_id)
        if watch is not None:
            loop = asyncio.get_running_loop()
            # A moment more, so that the time has come for certain.
            watch.timer = loop.call_later(seconds + 0.01, self._look_soon, attempt_id)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                attempt_id = next(iter(self._due))
                del self._due[attempt_id]
                try:
                    await self._look(attempt_id)
                except (Unavailable, TooManyRequests) as error:
                    log.warning("a bake has to wait", attempt=attempt_id, error=error.message)
                    self._look_in(attempt_id, RETRY_SECONDS)
                except Exception:
                    log.exception("cannot look after a bake", attempt=attempt_id)
                    self._look_in(attempt_id, RETRY_SECONDS)

    async def _look(self, attempt_id: str) -> None:
        watch = self._watches.get(attempt_id)
        if watch is None:
            return
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        known = await self._known(attempt_id)
        if known is None:
            self._drop(attempt_id)
            self._leave(attempt_id)
            return
        self._watch(known.attempt)
        if known.attempt.result.is_finished:
            # Again, in case its end came before its beginning: others would wait without end.
            self._leave(attempt_id)
        else:
            await self._cancel_those_ahead(known)
        executor_id = known.attempt.executor_id
        record = None if executor_id is None else await self._jobs.record(executor_id)
        facts = await self._facts(watch, known, record)
        decision = decide(facts, self._limits)
        match decision:
            case Wait(seconds):
                if seconds is not None:
                    self._look_in(attempt_id, seconds)
            case StartMainJob():
                if not await self._starter.start_next(known):
                    self._look_soon(attempt_id)
            case Finish(result, message):
                log.info("a bake is given up", attempt=attempt_id, message=message)
                await self._finish(attempt_id, result, message)
            case CleanUp():
                await self._end(await self._jobs_of(known))
                await self._close_tasks(known.attempt)
                self._drop(attempt_id)

    async def _known(self, attempt_id: str) -> Known | None:
        try:
            return await self._database.read(partial(records.known, attempt_id=attempt_id))
        except Damaged as error:
            # Nothing can be done for it, and those of its group must not wait for it.
            log.error("a damaged bake is not looked after", attempt=attempt_id, error=error.message)
            return None

    async def _facts(self, watch: Watch, known: Known, record: JobRecord | None) -> Facts:
        attempt = known.attempt
        executor = main_jobs.state_of(record)
        if executor is Executor.DEAD and watch.dead_job != attempt.executor_id:
            await self._note_death(watch, attempt)
        silent = 0.0 if self._hub.is_driven(attempt.id) else _now() - watch.heard_at
        return Facts(
            result=attempt.result,
            executor=executor,
            silent=silent,
            dead_for=_now() - watch.died_at,
            deaths=watch.deaths,
            is_scheduled=_is_scheduled(known),
            is_busy_locally=executor is Executor.TERMINAL
            and await self._is_busy_locally(watch, attempt, silent),
        )

    async def _is_busy_locally(self, watch: Watch, attempt: Attempt, silent: float) -> bool:
        # A client that has streams shows its life by them, whatever it does meanwhile.
        if watch.had_stream or silent < self._limits.silence:
            return False
        return await self._database.read(partial(records.is_busy_locally, attempt=attempt))

    async def _note_death(self, watch: Watch, attempt: Attempt) -> None:
        progress = await self._database.read(partial(records.progress, attempt_id=attempt.id))
        # A record written without a change is not progress, or restarts would never end.
        watch.deaths = watch.deaths + 1 if progress == watch.progress else 1
        watch.progress = progress
        watch.dead_job = attempt.executor_id
        watch.died_at = _now()

    # Doing.

    async def _cancel_those_ahead(self, known: Known) -> None:
        turn = self._turns.of(known.attempt.id)
        if turn is None or not turn.cancels:
            return
        name = known.bake.name or known.bake.id
        for ahead in self._turns.ahead(turn):
            message = f"Cancelled by {name}, which came after it in the group '{turn.group}'."
            await self._finish(ahead.attempt_id, TaskStatus.CANCELLED, message)

    async def _finish(self, attempt_id: str, result: TaskStatus, message: str) -> None:
        await self._attempts.change(attempt_id, result=result, message=message)

    async def _close_tasks(self, attempt: Attempt) -> None:
        def close(connection: Connection) -> list[str]:
            return records.close_tasks(connection, attempt.id, datetime.now(UTC))

        def tell(closed: list[str]) -> None:
            if closed:
                self._hub.tasks_changed(attempt.bake_id, attempt.id, closed)

        # Mostly there are none, and reading thousands of tasks must not keep others from writing.
        if await self._database.read(partial(open_tasks_of, attempt_id=attempt.id)):
            await commit(self._database, close, tell)

    async def _jobs_of(self, known: Known) -> list[JobRecord]:
        """The active jobs of an attempt's tasks."""
        tag = main_jobs.tag_of(known.bake.id)
        found = [
            record
            for record in self._board
            if tag in record.specification.tags and main_jobs.TAG not in record.specification.tags
        ]
        if found and not known.is_last:
            # The others are those of a later attempt, which goes on.
            own = await self._database.read(
                partial(records.jobs_of_tasks, attempt_id=known.attempt.id)
            )
            found = [record for record in found if record.id in own]
        return found

    async def _end_bakes(self, bake_ids: set[str]) -> None:
        tags = {main_jobs.tag_of(bake_id) for bake_id in bake_ids}
        await self._end(
            [record for record in self._board if not tags.isdisjoint(record.specification.tags)]
        )

    async def _end_stranded(self) -> None:
        """End the main jobs that would wait without end for a server at its former address.

        Each has a successor, as if it had died. One whose attempt does not name it yet is adopted
        like all that change.
        """
        found = [record for record in self._board if self._jobs.is_stranded(record)]
        for record in found:
            log.info("a main job cannot find this server any more", job=record.id)
        await self._end(found, Reason.ADDRESS_CHANGED)

    async def _end(
        self, found: Iterable[JobRecord], reason: Reason = Reason.USER_REQUESTED
    ) -> None:
        await asyncio.gather(*(self._jobs.kill(record, reason) for record in found))


def _is_scheduled(known: Known) -> bool:
    # Later attempts are begun by whoever asked for them.
    return (
        known.bake.meta.schedule is not None
        and known.attempt.number == 1
        and known.attempt.executor_id is None
        and known.attempt.result is not TaskStatus.RUNNING
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
