"""Moves reality to intent: tells jobs what happens, and does what their lives ask for.

The database is the truth about intent, the engine about reality. Everything here may run at any
time, twice, from any state: starts are idempotent, finished jobs never change, and after a crash
``adopt`` compares the two and goes on from there. What an event makes of a job is ``life.decide``'s
to say, and nothing of it stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from neuro.domain.errors import PlatformError, Unavailable
from neuro.domain.jobs import Reason
from neuro.engines.base import (
    Engine,
    EngineFault,
    Exited,
    NotReady,
    Placement,
    RunRef,
    RunSpec,
    RunState,
)
from neuro.server.background import LONGEST_TIMER, Background, Kept
from neuro.server.jobs import life
from neuro.server.jobs.board import Board
from neuro.server.jobs.phases import Event, Phase
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")


class Reconciler:
    """One for all engines; everything happens on the event loop, between two awaits."""

    def __init__(
        self,
        board: Board,
        writer: Writer,
        engines: Mapping[str, Engine],
        make_spec: Callable[[JobRecord], Awaitable[RunSpec]],
        background: Background,
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
        self._unwritten: list[tuple[str, int]] = []  # runs that start once they are written
        self._background = background
        self._watches: list[Kept] = []
        self._errands = background.errands("reconciler of jobs")
        self._starts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._schedule_is_due = False

    async def adopt(self, active: Iterable[JobRecord], known: Mapping[str, list[RunRef]]) -> None:
        """Take over after a restart: ``active`` from the database, ``known`` logs by engine."""
        records = list(active)
        for name, engine in self._engines.items():
            mine = [record for record in records if record.engine == name]
            refs = {RunRef(record.id, record.run) for record in mine if record.placed}
            states = await engine.adopt(refs | set(known.get(name, ())))
            self._board.lanes[name].delegated = engine.placement is Placement.DELEGATED
            found = [(record, states.get(RunRef(record.id, record.run))) for record in mine]
            # All that is held is taken again before anything is given: GPUs have to be told apart.
            for record, state in found:
                self._take_again(record, state)
            for record, state in found:
                for happening in life.on_return(record, state, _now()):
                    self._tell(record.id, happening)
        for name in self._engines:
            what = f"watch over the engine {name}"
            self._watches.append(self._background.keep(what, partial(self._watch, name)))
        self.schedule()

    def _take_again(self, record: JobRecord, state: RunState | None) -> None:
        is_new = state is None and record.run == 0 and record.phase is Phase.STARTING
        if is_new and record.gpus is None and record.specification.amount.gpu:
            # Nobody knows which it was given, and it never saw them.
            record = replace(record, phase=Phase.WAITING)
        self._board.add(record)
        if state is None or state.exited is not None:
            self._board.lanes[record.engine].run_is_over(record)

    async def close(self) -> None:
        """Stop reconciling; jobs go on running."""
        for timer in self._timers.values():
            timer.cancel()
        for watch in self._watches:
            await watch.stop()
        await self._errands.stop()

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
        submitted = life.Told(Event.SUBMITTED)
        asyncio.get_running_loop().call_soon(self._tell, record.id, submitted)
        if not record.placed:
            self.schedule()

    def stop(self, record: JobRecord, reason: Reason) -> None:
        """End a job for a reason; its first reason stays. Idempotent."""
        self._tell(record.id, life.StopAsked(reason))

    def set_life_span(self, record: JobRecord, minutes: int | None) -> None:
        """Let a job run for so many minutes; None for no limit."""
        self._tell(record.id, life.LifeSpanSet(minutes))

    def schedule(self) -> None:
        """Look at the queues soon; many calls in a row make one look."""
        if not self._schedule_is_due:
            self._schedule_is_due = True
            asyncio.get_running_loop().call_soon(self._schedule_now)

    def _schedule_now(self) -> None:
        self._schedule_is_due = False
        for name in self._engines:
            for job_id, gpus in self._board.choose(name):
                self._tell(job_id, life.Given(Event.PLACED, gpus))

    async def _watch(self, name: str) -> None:
        async for event in self._engines[name].events():
            self._tell(event.ref.job_id, event)

    # What happened, and what is asked for.

    def _tell(self, job_id: str, happening: life.Happening) -> None:
        before = self._board.get(job_id)
        if before is None:
            return
        record, effects = life.decide(before, happening, _now())
        self._board.put(record)
        _log(before, record, happening)
        for effect in effects:
            self._do(record, effect)

    def _do(self, record: JobRecord, effect: life.Effect) -> None:
        match effect:
            case life.Free():
                self._board.remove(record)
                self.schedule()
            case life.Write():
                self._writer.save(record)
                self._board.changed(record)
            case life.Start(run, after_write=True):
                if not self._unwritten:
                    self._errands.begin(self._start_written())
                self._unwritten.append((record.id, run))
            case life.Start(run):
                self._errands.begin(self._start(record.id, run))
            case life.Stop(number):
                self._errands.begin(self._stop(record, number))
            case life.RunIsOver():
                if self._board.lanes[record.engine].run_is_over(record):
                    self.schedule()
            case life.Timer(at):
                self._set_timer(record.id, at)

    async def _start_written(self) -> None:
        # The database knows that a run was asked for before the engine does: after a crash in
        # between, the start is repeated, and the engine sees to it that it happens once.
        runs, self._unwritten = self._unwritten, []
        await self._writer.settle()
        for job_id, run in runs:
            self._errands.begin(self._start(job_id, run))

    async def _start(self, job_id: str, run: int) -> None:
        # One after the other: the second must not say that the engine was not asked while it is.
        lock = self._starts.setdefault(job_id, asyncio.Lock())
        async with lock:
            await self._start_alone(job_id, run)

    async def _start_alone(self, job_id: str, run: int) -> None:
        record = self._board.get(job_id)
        if record is None or record.run != run:
            return
        if record.phase is not Phase.STARTING:
            self._tell(job_id, life.Told(Event.NOT_ASKED, run))
            return
        gpus = self._board.lanes[record.engine].gpus_for(record)
        if gpus is None:
            self._tell(job_id, life.Told(Event.GPUS_UNKNOWN, run))
        elif gpus != record.gpus:
            self._tell(job_id, life.Given(Event.GPUS_GIVEN, gpus))
            await self._writer.settle()
            await self._start_alone(job_id, run)
        else:
            self._tell(job_id, await self._ask_to_start(record))

    async def _ask_to_start(self, record: JobRecord) -> life.Happening:
        """Ask the engine, and say what it answered."""
        run = record.run
        try:
            spec = await self._make_spec(record)
            now = self._board.get(record.id)
            if now is None or now.run != run or now.phase is not Phase.STARTING:
                return life.Told(Event.NOT_ASKED, run)
            await self._engines[record.engine].start(spec)
        except (NotReady, Unavailable, OSError) as error:
            # A database that is away, a full disk: that is no fault of the job's.
            return life.StartTrouble(Event.START_FAILED, run, _sentence(error))
        except (EngineFault, PlatformError) as error:
            return life.StartTrouble(Event.REFUSED, run, _sentence(error))
        except Exception as error:
            log.error("the start of a job failed", job=record.id, exc_info=error)
            return life.StartTrouble(Event.START_FAILED, run, _sentence(error))
        return life.Told(Event.START_DONE, run)

    async def _stop(self, record: JobRecord, number: int) -> None:
        with suppress(Unavailable):  # a full disk keeps no job alive
            await self._writer.flush()
        ref = RunRef(record.id, record.run)
        try:
            has_it = await self._engines[record.engine].stop(ref, self._stop_grace)
            answer = Event.STOP_DONE if has_it else Event.NOTHING_TO_STOP
        except Exception as error:
            log.error("a job cannot be stopped yet", job=record.id, exc_info=error)
            answer = Event.STOP_FAILED
        self._tell(record.id, life.StopAnswered(answer, number))

    def _set_timer(self, job_id: str, moment: datetime | None) -> None:
        timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()
        if moment is not None:
            delay = max(0.0, (moment - _now()).total_seconds())
            loop = asyncio.get_running_loop()
            self._timers[job_id] = loop.call_later(min(delay, LONGEST_TIMER), self._ring, job_id)

    def _ring(self, job_id: str) -> None:
        self._timers.pop(job_id, None)
        record = self._board.get(job_id)
        if record is not None:
            self._tell(job_id, life.Alarm(self._board.waits_for(record)))


def _log(before: JobRecord, after: JobRecord, happening: life.Happening) -> None:
    job, owner = after.id, after.owner
    if after.stop_reason != before.stop_reason:
        log.info("job is to end", job=job, owner=owner, reason=after.stop_reason)
    if after.phase is before.phase:
        return
    if after.run_started and not before.run_started:
        log.info("job started", job=job, owner=owner, run=after.run)
    if after.phase is Phase.PAUSING and after.tries > before.tries:
        log.warning("job cannot start yet", job=job, why=_why(happening))
    if not after.is_active:
        if isinstance(happening, life.StartTrouble):
            log.warning("job cannot start", job=job, error=happening.why)
        log.info(
            "job is over",
            job=job,
            owner=owner,
            status=after.status.value,
            reason=after.transitions[-1].reason,
            exit_code=after.exit_code,
            peak_memory=happening.peak_memory if isinstance(happening, Exited) else None,
        )


def _why(happening: life.Happening) -> str | None:
    match happening:
        case life.StartTrouble(_, _, why) | Exited(message=why):
            return why
        case _:
            return None


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _now() -> datetime:
    return datetime.now(UTC)
