"""Asks the engines to start runs and to stop them, and tells their jobs what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from weakref import WeakValueDictionary

import structlog

from neuro.domain.errors import PlatformError, Unavailable
from neuro.engines.base import EngineFault, NotReady, RunRef, RunSpec
from neuro.server.background import Errands
from neuro.server.jobs import life
from neuro.server.jobs.board import Board
from neuro.server.jobs.holding import Holding
from neuro.server.jobs.phases import Event, Phase
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")


class Asking:
    """What is asked of the engines that this server holds."""

    def __init__(
        self,
        board: Board,
        writer: Writer,
        held: Mapping[str, Holding],
        make_spec: Callable[[JobRecord], Awaitable[RunSpec]],
        tell: Callable[[str, life.Happening], None],
        errands: Errands,
        *,
        stop_grace: float,
    ) -> None:
        """``held`` changes; ``tell`` lets a job know what happened to it.

        The rest is the reconciler's.
        """
        self._board = board
        self._writer = writer
        self._held = held
        self._make_spec = make_spec
        self._tell = tell
        self._errands = errands
        self._stop_grace = stop_grace
        self._unwritten: list[tuple[str, int]] = []  # runs that start once they are written
        self._starts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def start(self, record: JobRecord, run: int, *, after_write: bool) -> None:
        """Have a run started, or only once the database knows of it."""
        if not after_write:
            self._held[record.engine].errands.begin(self._start(record.id, run))
            return
        if not self._unwritten:
            self._errands.begin(self._start_written())
        self._unwritten.append((record.id, run))

    def stop(self, record: JobRecord, number: int) -> None:
        """Have the run of a job stopped; ``number`` is which of its stops this is."""
        holding = self._held[record.engine]
        holding.errands.begin(self._stop(holding, record, number))

    async def close(self) -> None:
        """Ask nothing more."""
        await self._errands.stop()

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
        lane = self._board.lanes[record.engine]
        if lane.away is not None:
            self._tell(job_id, life.StartTrouble(Event.START_FAILED, run, lane.away))
            return
        place = lane.place_for(record)
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
            holding.check()
            await holding.engine.start(spec)
        except (NotReady, Unavailable, OSError) as error:
            # A database that is away, a full disk: that is no fault of the job's.
            return life.StartTrouble(Event.START_FAILED, run, sentence(error))
        except (EngineFault, PlatformError) as error:
            return life.StartTrouble(Event.REFUSED, run, sentence(error))
        except Exception as error:
            log.error("the start of a job failed", job=record.id, exc_info=error)
            return life.StartTrouble(Event.START_FAILED, run, sentence(error))
        return life.Told(Event.START_DONE, run)

    async def _stop(self, holding: Holding, record: JobRecord, number: int) -> None:
        with suppress(Unavailable):  # a full disk keeps no job alive
            await self._writer.flush()
        ref = RunRef(record.id, record.run)
        try:
            holding.check()
            has_it = await holding.engine.stop(ref, self._stop_grace)
            answer = Event.STOP_DONE if has_it else Event.NOTHING_TO_STOP
        except NotReady as error:
            if holding.is_met:  # else it is said of the engine, once
                log.warning("a job cannot be stopped yet", job=record.id, why=sentence(error))
            answer = Event.STOP_FAILED
        except Exception as error:
            log.error("a job cannot be stopped yet", job=record.id, exc_info=error)
            answer = Event.STOP_FAILED
        self._tell(record.id, life.StopAnswered(answer, number))


def sentence(error: Exception) -> str:
    """What an error says."""
    return str(error) or type(error).__name__
