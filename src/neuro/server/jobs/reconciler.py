"""Moves reality to intent: tells jobs what happens, and does what their lives ask for.

The database is the truth about intent, the engine about reality. Everything here may run at any
time, twice, from any state: starts are idempotent, finished jobs never change, and whoever is given
an engine compares the two (``take``) and goes on from there. What an event makes of a job is
``life.decide``'s to say, and nothing of it stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from neuro.domain.errors import PlatformError, Unavailable
from neuro.domain.jobs import Reason
from neuro.engines.base import (
    Engine,
    EngineFault,
    Node,
    NodesChanged,
    NotReady,
    Placement,
    RunRef,
    RunSpec,
    RunState,
)
from neuro.server.background import LONGEST_TIMER, Background, Kept
from neuro.server.jobs import life
from neuro.server.jobs.board import Board
from neuro.server.jobs.holding import Holding, Sharing
from neuro.server.jobs.leases import ALWAYS, EngineLease
from neuro.server.jobs.life_log import tell_log
from neuro.server.jobs.phases import Event, Phase
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")

# By then a server that was frozen knows whether an engine is still its own.
UNSURE_SECONDS = 1.0


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
        self._held: dict[str, Holding] = {}
        self._watches: dict[str, Kept] = {}
        self._errands = background.errands("reconciler of jobs")
        self._starts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._schedule_is_due = False

    def holding(self, engine: str) -> Holding | None:
        """An engine that is this server's now; another object each time that it is taken."""
        return self._held.get(engine)

    def has_kept(self, holding: Holding) -> bool:
        """Whether an engine was this server's all the time since that ``holding``, for certain:
        what was written of its jobs meanwhile was this server's to write.
        """
        return holding in self._held.values() and holding.lease.is_held

    async def adopt(self, active: Iterable[JobRecord], known: Mapping[str, list[RunRef]]) -> None:
        """``take`` every engine that has a lane on the board, for as long as the server runs."""
        records = list(active)
        for name in self._engines:
            mine = [record for record in records if record.engine == name]
            share = partial(_those, list(self._board.lanes[name].nodes.values()))
            await self.take(name, share, mine, known.get(name, ()))

    async def take(
        self,
        name: str,
        share: Sharing,
        active: Collection[JobRecord],
        known: Collection[RunRef],
        lease: EngineLease = ALWAYS,
    ) -> None:
        """Have an engine from now on, whatever became of its jobs while nobody, or another, had it.

        ``share`` is what jobs may have of its nodes, whatever these come to be. ``active`` are its
        jobs from the database, read under the lease; ``known`` are the runs whose logs are kept.
        Raises what the engine's ``adopt`` raises; then nothing is taken.
        """
        engine = self._engines[name]
        refs = {RunRef(record.id, record.run) for record in active if record.placed}
        nodes = await engine.nodes()
        states = await engine.adopt(refs | set(known))
        found = [(record, states.get(RunRef(record.id, record.run))) for record in active]
        self._held[name] = Holding(engine, lease, share)
        delegated = engine.placement is Placement.DELEGATED
        self._board.open(name, share(nodes), delegated=delegated)
        # All that is held is taken again before anything is given: GPUs have to be told apart.
        for record, state in found:
            self._take_again(record, state)
        for record, state in found:
            for happening in life.on_return(record, state, _now()):
                self._tell(record.id, happening)
        what = f"watch over the engine {name}"
        self._watches[name] = self._background.keep(what, partial(self._watch, name))
        self.schedule()

    async def drop(self, name: str) -> None:
        """Have nothing to do with an engine any more: another server has it, or will.

        At once no job of it is written, started or stopped; its runs go on. Nothing if it is not
        held.
        """
        holding = self._held.pop(name, None)
        if holding is None:
            return
        gone = self._board.close(name)
        self._writer.drop(name)
        for record in gone:
            self._set_timer(record.id, None)
        await self._watches.pop(name).stop()
        await holding.errands.stop()

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
        for watch in self._watches.values():
            await watch.stop()
        for holding in self._held.values():
            await holding.errands.stop()
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
        self._begin(record)

    def arrived(self, record: JobRecord) -> None:
        """The same of a job that was submitted to another server, for an engine of this one.

        What that server had reserved for it, it had of an engine that it did not have any more.
        """
        if record.phase is Phase.STARTING and record.run == 0:
            record = replace(record, phase=Phase.WAITING, node="", gpus=())
            # Else whoever has the engine next would hold for it what it was never given.
            self._writer.save(record)
        log.info("job taken in", job=record.id, owner=record.owner)
        self._begin(record)

    def _begin(self, record: JobRecord) -> None:
        self._board.add(record)
        self._board.changed(record)
        submitted = life.Told(Event.SUBMITTED)
        if record.placed:
            asyncio.get_running_loop().call_soon(self._tell, record.id, submitted)
        else:
            # Before a look at the queue that is due already places it: what is told then of a job
            # that is placed is that the database knows so.
            self._tell(record.id, submitted)
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
        for name in self._held:
            for job_id, place in self._board.choose(name):
                self._tell(job_id, life.Given(Event.PLACED, place.gpus, place.node))

    async def _watch(self, name: str) -> None:
        holding = self._held[name]
        if holding.is_watched:  # They broke off, and what was on its way may be lost.
            await self._resync(name, holding.engine)
            await self._look_at_nodes(name, holding)
        holding.is_watched = True
        async for event in holding.engine.events():
            if isinstance(event, NodesChanged):
                await self._look_at_nodes(name, holding)
            else:
                self._tell(event.ref.job_id, event)

    async def _look_at_nodes(self, name: str, holding: Holding) -> None:
        """No run is touched: what a job has been given is its own until that ends."""
        nodes = holding.share(await holding.engine.nodes())
        log.info("nodes of an engine", engine=name, nodes=[node.name for node in nodes])
        self._board.lanes[name].offer(nodes)
        self.schedule()

    async def _resync(self, name: str, engine: Engine) -> None:
        asked = [job for job in self._board.placed() if job.engine == name]
        states = await engine.resync([RunRef(job.id, job.run) for job in asked])
        for job in asked:
            for happening in life.on_resync(job, states.get(RunRef(job.id, job.run)), _now()):
                self._tell(job.id, happening)

    # What happened, and what is asked for.

    def _tell(self, job_id: str, happening: life.Happening) -> None:
        before = self._board.get(job_id)
        if before is None:
            return
        record, effects = life.decide(before, happening, _now())
        self._board.put(record)
        tell_log(before, record, happening)
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
                self._held[record.engine].errands.begin(self._start(record.id, run))
            case life.Stop(number):
                holding = self._held[record.engine]
                holding.errands.begin(self._stop(holding, record, number))
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
            record = self._board.get(job_id)
            if record is not None:
                self._held[record.engine].errands.begin(self._start(job_id, run))

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
        place = self._board.lanes[record.engine].place_for(record)
        if isinstance(place, str):
            self._tell(job_id, life.StartTrouble(Event.NO_ROOM, run, place))
        elif place != (record.node, record.gpus):
            self._tell(job_id, life.Given(Event.MOVED, place.gpus, place.node))
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
            holding = self._held[record.engine]
            holding.check_is_held()
            await holding.engine.start(spec)
        except (NotReady, Unavailable, OSError) as error:
            # A database that is away, a full disk: that is no fault of the job's.
            return life.StartTrouble(Event.START_FAILED, run, _sentence(error))
        except (EngineFault, PlatformError) as error:
            return life.StartTrouble(Event.REFUSED, run, _sentence(error))
        except Exception as error:
            log.error("the start of a job failed", job=record.id, exc_info=error)
            return life.StartTrouble(Event.START_FAILED, run, _sentence(error))
        return life.Told(Event.START_DONE, run)

    async def _stop(self, holding: Holding, record: JobRecord, number: int) -> None:
        with suppress(Unavailable):  # a full disk keeps no job alive
            await self._writer.flush()
        ref = RunRef(record.id, record.run)
        try:
            holding.check_is_held()
            has_it = await holding.engine.stop(ref, self._stop_grace)
            answer = Event.STOP_DONE if has_it else Event.NOTHING_TO_STOP
        except NotReady as error:
            log.warning("a job cannot be stopped yet", job=record.id, why=_sentence(error))
            answer = Event.STOP_FAILED
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
        if record is None:
            return
        ends = record.phase in (Phase.WAITING, Phase.RUNNING)
        if ends and not self._held[record.engine].lease.is_held:
            # Another server may have the engine: nobody is told of an end that this one may not
            # be able to write.
            self._set_timer(job_id, _now() + timedelta(seconds=UNSURE_SECONDS))
            return
        self._tell(job_id, life.Alarm(self._board.waits_for(record)))


def _those(nodes: Sequence[Node], _: Sequence[Node]) -> Sequence[Node]:
    return nodes


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _now() -> datetime:
    return datetime.now(UTC)
