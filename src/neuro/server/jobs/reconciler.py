"""Moves reality to intent: tells jobs what happens, and does what their lives ask for.

The database is the truth about intent, the engine about reality. Everything here may run at any
time, twice, from any state: starts are idempotent, finished jobs never change, and whoever is given
an engine compares the two (``take``) and goes on from there. What an event makes of a job is
``life.decide``'s to say, and nothing of it stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from msgspec.structs import replace

from neuro.domain.jobs import Reason
from neuro.engines.base import (
    Engine,
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
from neuro.server.jobs.arrivals import away_because
from neuro.server.jobs.asking import Asking, sentence
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
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._background = background
        self._held: dict[str, Holding] = {}
        self._node_listeners: list[Callable[[str], None]] = []
        self._watches: dict[str, Kept] = {}
        self._asking = Asking(
            board,
            writer,
            self._held,
            make_spec,
            self._tell,
            background.errands("reconciler of jobs"),
            stop_grace=stop_grace,
        )
        self._schedule_is_due = False

    def holding(self, engine: str) -> Holding | None:
        """An engine that is this server's now; another object each time that it is taken."""
        return self._held.get(engine)

    def unmet(self) -> set[str]:
        """The engines of this server that have not been there since it has them."""
        return {name for name, holding in self._held.items() if not holding.is_met}

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have ``listener`` called with each engine whose nodes change, or that comes or goes."""
        self._node_listeners.append(listener)

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
        away: str | None = None,
    ) -> None:
        """Have an engine from now on, whatever became of its jobs while nobody, or another, had it.

        ``share`` is what jobs may have of its nodes, whatever these come to be. ``active`` are its
        jobs from the database, read under the lease; ``known`` are the runs whose logs are kept.
        Raises what the engine's ``adopt`` raises; then nothing is taken.

        ``away`` says why the engine cannot be asked anything. Then its jobs wait, can be stopped
        where they have not begun, and keep what they have, until ``meet``.
        """
        engine = self._engines[name]
        nodes, states = ((), {}) if away else await _compare(engine, active, known)
        self._held[name] = Holding(engine, lease, share)
        delegated = engine.placement is Placement.DELEGATED
        self._board.open(name, share(nodes), delegated=delegated)
        self._board.lanes[name].away = away
        # All that is held is taken again before anything is given: GPUs have to be told apart.
        for record in active:
            known_to_be_new = away is None and _ref(record) not in states
            self._board.add(_without_place(record) if known_to_be_new else record)
        if away is None:
            self._go_on(name, active, states)
            return
        for record in active:
            if not record.placed:
                self._return(record.id, None)
        self._nodes_changed(name)

    async def meet(self, name: str, known: Collection[RunRef]) -> None:
        """Go on with an engine that was taken while it was away, and is there now.

        Nothing if this server has lost it. Raises what the engine's ``adopt`` raises.
        """
        holding = self._held.get(name)
        if holding is None or holding.is_met:
            return
        placed = [job for job in self._board.placed() if job.engine == name]
        nodes, states = await _compare(holding.engine, placed, known)
        if self._held.get(name) is holding:
            lane = self._board.lanes[name]
            lane.away = None
            lane.offer(holding.share(nodes))
            self._go_on(name, placed, states)

    def _go_on(
        self, name: str, jobs: Collection[JobRecord], states: Mapping[RunRef, RunState]
    ) -> None:
        self._held[name].is_met = True
        for record in jobs:
            state = states.get(_ref(record))
            if state is None or state.exited is not None:
                self._board.lanes[name].run_is_over(record)
        for record in jobs:
            self._return(record.id, states.get(_ref(record)))
        what = f"watch over the engine {name}"
        self._watches[name] = self._background.keep(what, partial(self._watch, name))
        self._nodes_changed(name)

    def _return(self, job_id: str, state: RunState | None) -> None:
        record = self._board.get(job_id)
        if record is not None:
            for happening in life.on_return(record, state, _now()):
                self._tell(job_id, happening)

    def _nodes_changed(self, name: str) -> None:
        for listener in self._node_listeners:
            listener(name)
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
        watch = self._watches.pop(name, None)
        if watch is not None:
            await watch.stop()
        await holding.errands.stop()

    async def close(self) -> None:
        """Stop reconciling; jobs go on running."""
        for timer in self._timers.values():
            timer.cancel()
        for watch in self._watches.values():
            await watch.stop()
        for holding in self._held.values():
            await holding.errands.stop()
        await self._asking.close()

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
        lane = self._board.lanes[name]
        try:
            nodes = holding.share(await holding.engine.nodes())
        except NotReady as error:
            log.warning("an engine is away", engine=name, why=sentence(error))
            lane.away = away_because(name, sentence(error))
        else:
            log.info("nodes of an engine", engine=name, nodes=[node.name for node in nodes])
            lane.away = None
            lane.offer(nodes)
        self._nodes_changed(name)

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
            case life.Start(run, after_write):
                self._asking.start(record, run, after_write=after_write)
            case life.Stop(number):
                self._asking.stop(record, number)
            case life.RunIsOver():
                if self._board.lanes[record.engine].run_is_over(record):
                    self.schedule()
            case life.Timer(at):
                self._set_timer(record.id, at)

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


async def _compare(
    engine: Engine, active: Iterable[JobRecord], known: Collection[RunRef]
) -> tuple[Sequence[Node], Mapping[RunRef, RunState]]:
    refs = {_ref(record) for record in active if record.placed}
    nodes = await engine.nodes()
    return nodes, await engine.adopt(refs | set(known))


def _ref(record: JobRecord) -> RunRef:
    return RunRef(record.id, record.run)


def _without_place(record: JobRecord) -> JobRecord:
    """A job that its engine does not know, without GPUs of which nobody knows which they were."""
    is_new = record.run == 0 and record.phase is Phase.STARTING
    if is_new and record.gpus is None and record.specification.amount.gpu:
        return replace(record, phase=Phase.WAITING)
    return record


def _those(nodes: Sequence[Node], _: Sequence[Node]) -> Sequence[Node]:
    return nodes


def _now() -> datetime:
    return datetime.now(UTC)
