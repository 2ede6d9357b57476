"""Moves reality to intent: starts what is scheduled, stops what must end, records what happened.

The database is the truth about intent, the engine about reality. Everything here may run at any
time, twice, from any state: starts are idempotent, finished jobs never change, and after a crash
``adopt`` compares the two and goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from neuro.domain.errors import PlatformError, Unavailable
from neuro.domain.jobs import JobStatus, Reason
from neuro.engines.base import (
    Engine,
    EngineFault,
    ExitCause,
    Exited,
    NotReady,
    RunRef,
    RunSpec,
    RunState,
    Started,
)
from neuro.server.jobs import endings
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")

# Between two looks at whether the GPUs of all other jobs are known; see ``Lane.give_gpus``.
UNKNOWN_GPUS_SECONDS = 5.0
# Between the first two tries of a run that the machine is not ready for; the later pauses grow.
NOT_READY_SECONDS = 2.0
MAX_PAUSE_SECONDS = 30.0
# Between two tries of what an engine failed at: to stop a run, to tell what happens.
AGAIN_SECONDS = 1.0

_SERVERS_TROUBLE = "The server cannot start jobs now, and tries again"
_VOLUMES_TROUBLE = "The job cannot start now, and the server tries again"


class Reconciler:
    """One for all engines; everything happens on the event loop, between two awaits."""

    def __init__(
        self,
        board: Board,
        writer: Writer,
        engines: Mapping[str, Engine],
        make_spec: Callable[[JobRecord], Awaitable[RunSpec]],
        *,
        stop_grace: float,
    ) -> None:
        """``make_spec`` says what an engine is to run for a record.

        ``stop_grace`` is seconds between SIGTERM and SIGKILL.
        """
        self._board = board
        self._writer = writer
        self._engines = engines
        self._make_spec = make_spec
        self._stop_grace = stop_grace
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiting: set[str] = set()  # jobs whose timer is for a start
        self._tries: dict[str, int] = {}  # starts of a job that failed one after the other
        self._unknown: set[str] = set()  # jobs of which the engine cannot say yet how they are
        self._tasks: set[asyncio.Task[None]] = set()
        self._schedule_is_due = False

    async def adopt(self, active: Iterable[JobRecord], known: Mapping[str, list[RunRef]]) -> None:
        """Take over after a restart: ``active`` from the database, ``known`` logs by engine."""
        records = list(active)
        for name, engine in self._engines.items():
            mine = {record.id: record for record in records if record.engine == name}
            refs = {RunRef(record.id, record.run) for record in mine.values() if record.placed}
            states = await engine.adopt(refs | set(known.get(name, ())))
            # All that is held is taken again before anything is given: GPUs have to be told apart.
            for record in mine.values():
                self._take_again(record, states.get(RunRef(record.id, record.run)))
            for record in mine.values():
                self._resume(record, states.get(RunRef(record.id, record.run)))
        for name in self._engines:
            self._spawn(self._watch(name))
        self.schedule()

    def _take_again(self, record: JobRecord, state: RunState | None) -> None:
        is_new = state is None and record.run == 0 and not record.run_started
        if is_new and record.gpus is None and record.specification.amount.gpu:
            record.placed = False  # Nobody knows which it was given, and it never saw them.
        self._board.add(record)
        if state is None or state.exited is not None:
            self._board.lanes[record.engine].run_is_over(record)

    def _resume(self, record: JobRecord, state: RunState | None) -> None:
        if state is None:
            if record.placed and record.run_started:
                self._exited(endings.lost(record, _now()))
            elif record.stop_reason is not None:
                self._finish_unstarted(record)
            elif record.placed:
                self._spawn(self._start(record))
            else:
                self._watch_schedule_timeout(record)
            return
        if state.trouble is not None:
            self._unknown.add(record.id)
            self._say(record, f"The server cannot look after the job yet: {state.trouble}")
        if state.started is not None:
            self._started(state.started)
        if state.exited is not None:
            self._exited(state.exited)
        elif record.stop_reason is not None:
            self._spawn(self._stop(record))
        self._watch_deadline(record)

    async def close(self) -> None:
        """Stop reconciling; jobs go on running."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submitted(self, record: JobRecord) -> None:
        """A new job starts, if the board has its resources reserved, or waits for its turn."""
        log.info(
            "job submitted",
            job=record.id,
            owner=record.owner,
            name=record.name,
            preset=record.specification.preset_name,
        )
        self._board.add(record)
        self._board.changed(record)
        if record.placed:
            asyncio.get_running_loop().call_soon(self._start_reserved, record)
        else:
            self._watch_schedule_timeout(record)
            self.schedule()

    def _start_reserved(self, record: JobRecord) -> None:
        # The database knows already that it is placed: nothing has to be written before.
        if record.is_active:
            self._scheduled(record)
            self._spawn(self._start(record))

    def schedule(self) -> None:
        """Look at the queues soon; many calls in a row make one look."""
        if not self._schedule_is_due:
            self._schedule_is_due = True
            asyncio.get_running_loop().call_soon(self._schedule_now)

    def _schedule_now(self) -> None:
        self._schedule_is_due = False
        for name in self._engines:
            chosen = self._board.choose(name)
            for record in chosen:
                self._scheduled(record)
            if chosen:
                self._spawn(self._start_all(chosen))

    def _scheduled(self, record: JobRecord) -> None:
        record.step(JobStatus.PENDING, Reason.SCHEDULING, _now())
        self._changed(record)

    async def _start_all(self, records: list[JobRecord]) -> None:
        # The database knows that a run was asked for before the engine does: after a crash in
        # between, the start is repeated, and the engine sees to it that it happens once.
        await self._writer.settle()
        for record in records:
            self._spawn(self._start(record))

    async def _start(self, record: JobRecord) -> None:
        if record.stop_reason is not None and not record.run_started:
            await self._stop(record, waits=True)
            return
        engine = self._engines[record.engine]
        before = record.gpus
        if not self._board.lanes[record.engine].give_gpus(record):
            self._start_later(record, UNKNOWN_GPUS_SECONDS)
            return
        if record.gpus != before:
            self._changed(record)
            await self._writer.settle()
        try:
            spec = await self._make_spec(record)
            if record.stop_reason is None:
                await engine.start(spec)
        except (NotReady, Unavailable, OSError) as error:
            # A database that is away, a full disk: that is no fault of the job's.
            await self._start_failed(record, error)
            return
        except (EngineFault, PlatformError) as error:
            log.warning("job cannot start", job=record.id, error=str(error))
            self._exited(endings.cannot_start(record, _now(), _sentence(error)))
            return
        except Exception as error:
            log.error("the start of a job failed", job=record.id, exc_info=error)
            await self._start_failed(record, error)
            return
        if record.stop_reason is not None:
            await self._stop(record, waits=True)

    async def _start_failed(self, record: JobRecord, error: Exception) -> None:
        """Retry the start. If the job must end, stop the run: it may have begun all the same."""
        if record.stop_reason is not None:
            await self._stop(record, waits=True)
        elif record.is_active and not record.run_started:  # or only the answer was lost
            self._not_ready(record, _sentence(error))

    def stop(self, record: JobRecord, reason: Reason) -> None:
        """End a job for a reason; its first reason stays. Idempotent."""
        if not record.is_active:
            return
        log.info("job is to end", job=record.id, owner=record.owner, reason=reason.value)
        record.stop_reason = record.stop_reason or reason.value
        self._changed(record)
        if not record.placed:
            self._finish_unstarted(record)
        else:
            self._spawn(self._stop(record))

    async def _stop(self, record: JobRecord, *, waits: bool = False) -> None:
        """Let the engine end the run. The job is over at once only where no run will ever be.

        ``waits``: no start of it is under way, or the caller is what was.
        """
        with suppress(Unavailable):  # a full disk keeps no job alive
            await self._writer.flush()
        while record.is_active:
            try:
                ref = RunRef(record.id, record.run)
                has_run = await self._engines[record.engine].stop(ref, self._stop_grace)
                break
            except Exception as error:
                log.error("a job cannot be stopped yet", job=record.id, exc_info=error)
                await asyncio.sleep(AGAIN_SECONDS)
        else:
            return
        waits = waits or record.id in self._waiting
        self._cancel_timer(record)
        if waits and not has_run and record.is_active and not record.run_started:
            self._finish_unstarted(record)

    def life_span_changed(self, record: JobRecord) -> None:
        """Look again at when a job must end."""
        self._changed(record)
        self._watch_deadline(record)

    async def _watch(self, name: str) -> None:
        while True:
            try:
                async for event in self._engines[name].events():
                    if isinstance(event, Started):
                        self._started(event)
                    else:
                        self._exited(event)
            except Exception as error:
                log.error("an engine's events broke off", engine=name, exc_info=error)
            await asyncio.sleep(AGAIN_SECONDS)

    def _started(self, event: Started) -> None:
        record = self._board.get(event.ref.job_id)
        if record is None or record.run != event.ref.run:
            return
        if record.run_started:
            if record.id in self._unknown:
                self._unknown.discard(record.id)
                self._say(record, None)
            return
        self._unknown.discard(record.id)
        record.run_started = True
        self._tries.pop(record.id, None)
        log.info("job started", job=record.id, owner=record.owner, run=record.run)
        self._cancel_timer(record)
        reason = Reason.RESTARTING if record.run else None
        record.step(JobStatus.RUNNING, reason, event.at)
        self._changed(record)
        self._watch_deadline(record)

    def _exited(self, event: Exited) -> None:
        record = self._board.get(event.ref.job_id)
        if record is None or record.run != event.ref.run:
            return
        self._unknown.discard(record.id)
        if event.cause is ExitCause.NOT_READY:
            self._not_ready(record, event.message or "")
        elif event.cause is ExitCause.VOLUME_NOT_READY:
            self._not_ready(record, event.message or "", _VOLUMES_TROUBLE)
        elif endings.must_restart(record, event):
            self._restart_later(record, event)
        else:
            self._finish(record, event)

    def _not_ready(self, record: JobRecord, why: str, what: str = _SERVERS_TROUBLE) -> None:
        """It is not the job's fault: it keeps what it was given, and is tried again."""
        log.warning("job cannot start yet", job=record.id, why=why)
        if record.stop_reason is not None:
            self._finish_unstarted(record)
            return
        self._say(record, f"{what}: {why}")
        # One job's own trouble, such as a volume that is full, must not keep the engine busy.
        tries = self._tries[record.id] = self._tries.get(record.id, 0) + 1
        pause = NOT_READY_SECONDS * 2 ** min(tries - 1, 10)
        self._start_later(record, min(pause, MAX_PAUSE_SECONDS))

    def _say(self, record: JobRecord, sentence: str | None) -> None:
        """Let the job's description be ``sentence``."""
        last = record.transitions[-1]
        if last.description != sentence:
            record.step(record.status, last.reason, _now(), description=sentence)
            self._changed(record)

    def _restart_later(self, record: JobRecord, event: Exited) -> None:
        delay = endings.restart(record, event)
        self._changed(record)
        if self._board.lanes[record.engine].run_is_over(record):
            self.schedule()
        self._start_later(record, delay)

    def _start_later(self, record: JobRecord, delay: float) -> None:
        self._cancel_timer(record)
        self._waiting.add(record.id)
        loop = asyncio.get_running_loop()
        self._timers[record.id] = loop.call_later(delay, lambda: self._spawn(self._restart(record)))

    async def _restart(self, record: JobRecord) -> None:
        self._cancel_timer(record)
        await self._writer.settle()
        await self._start(record)

    def _finish(self, record: JobRecord, event: Exited) -> None:
        endings.finish(record, event)
        self._over(record)

    def _finish_unstarted(self, record: JobRecord) -> None:
        endings.finish_unstarted(record, _now(), self._board.waits_for(record))
        self._over(record)

    def _over(self, record: JobRecord) -> None:
        log.info(
            "job is over",
            job=record.id,
            owner=record.owner,
            status=record.status.value,
            reason=record.transitions[-1].reason,
            exit_code=record.exit_code,
        )
        self._cancel_timer(record)
        self._tries.pop(record.id, None)
        self._board.remove(record)
        self._changed(record)
        self.schedule()

    def _watch_deadline(self, record: JobRecord) -> None:
        deadline = record.deadline
        if deadline is not None and record.run_started:
            self._at(record, deadline, Reason.LIFE_SPAN_ENDED)

    def _watch_schedule_timeout(self, record: JobRecord) -> None:
        timeout = record.specification.schedule_timeout
        if timeout is not None:
            moment = record.created_at + timedelta(seconds=timeout)
            self._at(record, moment, Reason.SCALE_UP_FAILED)

    def _at(self, record: JobRecord, moment: datetime, reason: Reason) -> None:
        self._cancel_timer(record)
        if not record.is_active:
            return
        delay = max(0.0, (moment - _now()).total_seconds())
        # Timers far away are looked at again once a day: the loop's clock may drift from UTC.
        far = delay > 86400
        loop = asyncio.get_running_loop()
        self._timers[record.id] = loop.call_later(
            min(delay, 86400),
            lambda: self._at(record, moment, reason) if far else self._due(record, reason),
        )

    def _due(self, record: JobRecord, reason: Reason) -> None:
        self._timers.pop(record.id, None)
        if reason is Reason.SCALE_UP_FAILED and record.placed:
            return
        self.stop(record, reason)

    def _cancel_timer(self, record: JobRecord) -> None:
        self._waiting.discard(record.id)
        timer = self._timers.pop(record.id, None)
        if timer is not None:
            timer.cancel()

    def _changed(self, record: JobRecord) -> None:
        self._writer.save(record)
        self._board.changed(record)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("reconciler task failed", exc_info=task.exception())


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _now() -> datetime:
    return datetime.now(UTC)
