"""What the reconciler makes of each thing that an engine tells, on a real database.

The engine is a scripted one: a test says what it reports, and sees what it was asked for. That real
sandboxes report so is for the tests of the engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from msgspec.structs import replace

from neuro.domain.jobs import JobStatus, Reason, RestartPolicy
from neuro.domain.resources import Amount
from neuro.engines.base import (
    EngineFault,
    Event,
    ExitCause,
    Exited,
    Node,
    Placement,
    RunRef,
    RunSpec,
    RunState,
    Started,
)
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.jobs import tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer
from tests.server.nodes import one_node
from tests.server.test_reconciler import spec_of
from tests.server.test_tables import add, record

GIB = 1 << 30


class ScriptedEngine:
    """Reports what it is told to, and keeps what it was asked for."""

    placement = Placement.LOCAL

    def __init__(self) -> None:
        self.known: dict[RunRef, RunState] = {}
        self.started: list[RunRef] = []
        self.stopped: list[RunRef] = []
        self.lacks: set[RunRef] = set()  # what it says that it does not have
        self.fault: Exception | None = None
        self.asked = asyncio.Condition()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        return {ref: state for ref, state in self.known.items() if ref in known}

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        return await self.adopt(refs)

    async def nodes(self) -> list[Node]:
        return []

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event
        raise ConnectionResetError("the stream of events broke off")

    async def start(self, spec: RunSpec) -> None:
        if self.fault is not None:
            raise self.fault
        async with self.asked:
            self.started.append(RunRef(spec.job_id, spec.run))
            self.asked.notify_all()

    async def stop(self, ref: RunRef, grace: float) -> bool:
        async with self.asked:
            self.stopped.append(ref)
            self.asked.notify_all()
        return ref not in self.lacks

    def report(self, event: Event) -> None:
        self._events.put_nowait(event)

    def break_off(self) -> None:
        """Lose whatever is not told yet."""
        self._events.put_nowait(None)


class House:
    """A reconciler with all that it works on."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = ScriptedEngine()
        self.board = Board({"sandbox": one_node(Amount(cpu=4, memory=4 * GIB))})
        self.writer = Writer(database)
        self.reconciler = Reconciler(
            self.board,
            self.writer,
            {"sandbox": self.engine},  # type: ignore[dict-item]  # what is asked here of one
            spec_of,
            Background(),
            stop_grace=0,
        )

    async def submit(self, policy: RestartPolicy = RestartPolicy.NEVER) -> JobRecord:
        """A job that the engine was asked to start."""
        job = new_job(policy)
        add(self.database, job)
        self.reconciler.submitted(job)
        await self.until_started(job)
        return job

    async def until_started(self, job: JobRecord) -> None:
        async with self.engine.asked:
            await self.engine.asked.wait_for(lambda: RunRef(job.id, job.run) in self.engine.started)

    async def until(self, job: JobRecord, holds: Callable[[JobRecord], bool]) -> JobRecord:
        """A job once this is true of it, or it is over."""
        live = self.board.get(job.id) or self.writer.unsaved(job.id)
        return await self.board.wait_until(live, holds) if live else await self.kept(job)

    async def until_it_is(self, job: JobRecord, status: JobStatus) -> None:
        assert (await self.until(job, lambda one: one.status is status)).status is status

    async def kept(self, job: JobRecord) -> JobRecord:
        """The job as the database has it."""
        await self.writer.settle()
        kept = self.database.write_now(lambda c: tables.get_job(c, job.id))
        assert kept is not None
        return kept


def new_job(policy: RestartPolicy = RestartPolicy.NEVER) -> JobRecord:
    job = record(over=False)
    return replace(job, specification=replace(job.specification, restart_policy=policy))


def started(job: JobRecord, run: int = 0) -> Started:
    return Started(ref=RunRef(job.id, run), at=datetime.now(UTC))


def exited(
    job: JobRecord, code: int | None = 0, cause: ExitCause = ExitCause.COMPLETED, run: int = 0
) -> Exited:
    return Exited(
        ref=RunRef(job.id, run),
        at=datetime.now(UTC),
        exit_code=code,
        cause=cause,
        output_bytes=7,
    )


@pytest_asyncio.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    house.writer.start(Background())
    yield house
    await house.reconciler.close()
    await house.writer.close()


@pytest.mark.parametrize(
    ("code", "cause", "status", "reason"),
    [
        (0, ExitCause.COMPLETED, JobStatus.SUCCEEDED, Reason.COMPLETED),
        (3, ExitCause.ERROR, JobStatus.FAILED, Reason.ERROR),
        (137, ExitCause.OUT_OF_MEMORY, JobStatus.FAILED, Reason.OOM_KILLED),
        (137, ExitCause.DISK_LIMIT, JobStatus.FAILED, Reason.DISK_LIMIT_EXCEEDED),
        (127, ExitCause.CANNOT_START, JobStatus.FAILED, Reason.CANNOT_RUN),
        (None, ExitCause.IMAGE_PULL, JobStatus.FAILED, Reason.ERR_IMAGE_PULL),
        (None, ExitCause.INVALID_IMAGE, JobStatus.FAILED, Reason.INVALID_IMAGE_NAME),
        (None, ExitCause.LOST, JobStatus.FAILED, Reason.NOT_FOUND),
    ],
)
async def test_how_a_run_ended_is_how_its_job_did(
    house: House, code: int | None, cause: ExitCause, status: JobStatus, reason: Reason
) -> None:
    await house.reconciler.adopt([], {})
    job = await house.submit()
    house.engine.report(started(job))
    house.engine.report(exited(job, code, cause))
    await house.until_it_is(job, status)

    kept = await house.kept(job)
    assert (kept.status, kept.transitions[-1].reason, kept.exit_code) == (status, reason, code)
    assert kept.log_bytes == 7
    assert house.board.get(job.id) is None


async def test_a_job_whose_start_is_refused_ends_with_the_engines_words(house: House) -> None:
    await house.reconciler.adopt([], {})
    house.engine.fault = EngineFault("no room on the stage")
    job = new_job()
    add(house.database, job)
    house.reconciler.submitted(job)
    await house.until_it_is(job, JobStatus.FAILED)

    kept = await house.kept(job)
    assert (kept.transitions[-1].reason, kept.transitions[-1].description) == (
        Reason.CANNOT_RUN,
        "no room on the stage",
    )


@pytest.mark.parametrize("ends", [False, True])
async def test_a_start_of_which_only_the_answer_is_lost_is_not_repeated(
    house: House, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.jobs.life.NOT_READY_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = new_job()
    add(house.database, job)
    asked = 0

    async def start(spec: RunSpec) -> None:
        nonlocal asked
        asked += 1
        house.engine.report(started(job))
        if ends:
            house.engine.report(exited(job))
        await house.until(job, lambda one: one.run_started and not ends)
        raise OSError("the connection broke")

    monkeypatch.setattr(house.engine, "start", start)
    house.reconciler.submitted(job)
    await house.until_it_is(job, JobStatus.SUCCEEDED if ends else JobStatus.RUNNING)
    for _ in range(100):  # a second start would be asked for at once
        await asyncio.sleep(0)
    kept = await house.kept(job)

    assert asked == 1
    assert kept.status is (JobStatus.SUCCEEDED if ends else JobStatus.RUNNING)
    assert kept.transitions[-1].description is None


@pytest.mark.parametrize(
    ("policy", "code", "runs"),
    [
        (RestartPolicy.NEVER, 1, 1),
        (RestartPolicy.ON_FAILURE, 0, 1),
        (RestartPolicy.ON_FAILURE, 1, 2),
        (RestartPolicy.ALWAYS, 0, 2),
    ],
)
async def test_a_restart_policy_makes_another_run(
    house: House, policy: RestartPolicy, code: int, runs: int
) -> None:
    await house.reconciler.adopt([], {})
    job = await house.submit(policy)
    cause = ExitCause.ERROR if code else ExitCause.COMPLETED
    house.engine.report(started(job))
    house.engine.report(exited(job, code, cause))

    if runs == 2:
        again = await house.until(job, lambda one: one.run == 1)
        await house.until_started(again)
        assert again.is_active
        house.engine.report(exited(job, code, cause))  # of the first run: told already
        house.engine.report(started(job, run=1))
        assert (await house.until(again, lambda one: one.run_started)).run == 1
    else:
        await house.until(job, lambda one: not one.is_active)
    assert len(house.engine.started) == runs


@pytest.mark.parametrize(
    "cause", [ExitCause.CANNOT_START, ExitCause.IMAGE_PULL, ExitCause.INVALID_IMAGE]
)
async def test_a_job_whose_command_never_ran_is_not_restarted(
    house: House, cause: ExitCause
) -> None:
    await house.reconciler.adopt([], {})
    job = await house.submit(RestartPolicy.ALWAYS)

    house.engine.report(exited(job, None, cause))
    await house.until_it_is(job, JobStatus.FAILED)

    assert len(house.engine.started) == 1


async def test_a_job_that_is_stopped_is_cancelled_for_the_first_reason(house: House) -> None:
    await house.reconciler.adopt([], {})
    job = await house.submit(RestartPolicy.ALWAYS)
    house.engine.report(started(job))
    await house.until_it_is(job, JobStatus.RUNNING)

    house.reconciler.stop(job, Reason.LIFE_SPAN_ENDED)
    house.reconciler.stop(job, Reason.USER_REQUESTED)
    async with house.engine.asked:
        await house.engine.asked.wait_for(lambda: RunRef(job.id) in house.engine.stopped)
    house.engine.report(exited(job, 143, ExitCause.ERROR))
    await house.until_it_is(job, JobStatus.CANCELLED)

    kept = await house.kept(job)
    assert (kept.transitions[-1].reason, kept.exit_code) == (Reason.LIFE_SPAN_ENDED, 143)


def placed(run_started: bool) -> JobRecord:
    if not run_started:
        return replace(new_job(), phase=Phase.STARTING)
    return replace(new_job(), phase=Phase.RUNNING).stepped(None, datetime.now(UTC))


async def test_a_start_that_a_crash_cut_off_is_repeated(house: House) -> None:
    job = placed(run_started=False)
    add(house.database, job)

    await house.reconciler.adopt([job], {})

    await house.until_started(job)
    assert house.board.get(job.id) is not None


async def test_a_run_that_the_engine_has_lost_ends_its_job(house: House) -> None:
    job = placed(run_started=True)
    add(house.database, job)

    await house.reconciler.adopt([job], {})

    kept = await house.kept(job)
    assert (kept.status, kept.transitions[-1].reason) == (JobStatus.FAILED, Reason.NOT_FOUND)
    assert house.engine.started == []


async def test_a_run_that_ended_meanwhile_is_told_as_it_was(house: House) -> None:
    job = placed(run_started=True)
    add(house.database, job)
    house.engine.known[RunRef(job.id)] = RunState(
        started=started(job), exited=exited(job, 3, ExitCause.ERROR)
    )

    await house.reconciler.adopt([job], {})

    kept = await house.kept(job)
    assert (kept.status, kept.exit_code) == (JobStatus.FAILED, 3)


async def test_a_run_that_goes_on_is_taken_over_and_stopped_if_that_was_asked_for(
    house: House,
) -> None:
    going = placed(run_started=True)
    stopped = replace(placed(run_started=True), stop_reason=Reason.USER_REQUESTED.value)
    add(house.database, going, stopped)
    leaving = await house.kept(stopped)
    for job in (going, leaving):
        house.engine.known[RunRef(job.id)] = RunState(started=started(job))

    await house.reconciler.adopt([going, leaving], {})
    async with house.engine.asked:
        await house.engine.asked.wait_for(lambda: house.engine.stopped)

    assert house.engine.stopped == [RunRef(leaving.id)]
    assert house.engine.started == []
    house.engine.report(exited(going))
    await house.until_it_is(going, JobStatus.SUCCEEDED)


async def test_a_job_that_was_stopped_before_it_had_a_place_never_starts(house: House) -> None:
    job = replace(new_job(), stop_reason=Reason.USER_REQUESTED.value)
    add(house.database, job)

    await house.reconciler.adopt([await house.kept(job)], {})

    kept = await house.kept(job)
    assert (kept.status, kept.transitions[-1].reason) == (
        JobStatus.CANCELLED,
        Reason.USER_REQUESTED,
    )
    assert house.engine.started == []


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (ExitCause.NOT_READY, "The server cannot start jobs now, and tries again: full"),
        (
            ExitCause.VOLUME_NOT_READY,
            "The job cannot start now, and the server tries again: full",
        ),
    ],
)
async def test_a_job_says_whose_trouble_it_waits_for(
    house: House, cause: ExitCause, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.jobs.life.NOT_READY_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = await house.submit()
    house.engine.started.clear()

    house.engine.report(replace(exited(job, None, cause), message="full"))
    await house.until_started(job)

    now = house.board.get(job.id)
    assert now is not None
    assert now.transitions[-1].description == sentence


@pytest.mark.parametrize("has_run", [True, False])
async def test_a_job_that_is_stopped_while_its_start_is_in_doubt_ends_as_its_run_does(
    house: House, has_run: bool
) -> None:
    await house.reconciler.adopt([], {})
    house.engine.fault = OSError("the connection broke")  # perhaps after it had been done
    job = new_job()
    add(house.database, job)
    if not has_run:
        house.engine.lacks.add(RunRef(job.id))
    house.reconciler.submitted(job)
    await house.until(job, lambda one: "broke" in str(one.transitions[-1].description))

    house.reconciler.stop(job, Reason.USER_REQUESTED)
    async with house.engine.asked:
        await house.engine.asked.wait_for(lambda: house.engine.stopped)
    if has_run:
        for _ in range(100):
            await asyncio.sleep(0)
        assert house.board.get(job.id) is not None  # its run has its time to end
        house.engine.report(exited(job, 5, ExitCause.ERROR))
    await house.until_it_is(job, JobStatus.CANCELLED)

    assert (await house.kept(job)).exit_code == (5 if has_run else None)
    assert house.engine.started == []


async def test_a_stop_that_came_before_the_answer_to_a_start_is_asked_for_once_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.reconciler.adopt([], {})
    job = new_job()
    add(house.database, job)
    house.engine.lacks.add(RunRef(job.id))

    async def start(spec: RunSpec) -> None:
        house.reconciler.stop(job, Reason.USER_REQUESTED)
        async with house.engine.asked:
            await house.engine.asked.wait_for(lambda: house.engine.stopped)
        house.engine.lacks.clear()
        house.engine.report(started(job))
        await house.until(job, lambda one: one.status is JobStatus.RUNNING)
        raise OSError("the connection broke")

    monkeypatch.setattr(house.engine, "start", start)
    house.reconciler.submitted(job)
    async with house.engine.asked:
        await house.engine.asked.wait_for(lambda: len(house.engine.stopped) == 2)
    house.engine.report(exited(job, 143, ExitCause.ERROR))
    await house.until_it_is(job, JobStatus.CANCELLED)


async def test_a_job_says_that_the_engine_does_not_know_yet_how_it_is(house: House) -> None:
    job = placed(run_started=True)
    add(house.database, job)
    house.engine.known[RunRef(job.id)] = RunState(trouble="too many open files")

    await house.reconciler.adopt([job], {})

    said = (await house.until(job, lambda _: True)).transitions[-1]
    assert (said.status, said.description) == (
        JobStatus.RUNNING,
        "The server cannot look after the job yet: too many open files",
    )
    house.engine.report(started(job))
    known = await house.until(job, lambda one: one.transitions[-1].description is None)
    assert known.status is JobStatus.RUNNING
    house.engine.report(exited(job))
    await house.until_it_is(job, JobStatus.SUCCEEDED)


async def test_an_end_that_was_missed_when_events_broke_off_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.background.PAUSE_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    ended, going, lost = [await house.submit() for _ in range(3)]
    for job in (ended, going, lost):
        house.engine.report(started(job))
        await house.until_it_is(job, JobStatus.RUNNING)
    house.engine.known[RunRef(ended.id)] = RunState(exited=exited(ended, 3, ExitCause.ERROR))
    house.engine.known[RunRef(going.id)] = RunState(started=started(going))

    house.engine.break_off()
    await house.until_it_is(ended, JobStatus.FAILED)
    await house.until_it_is(lost, JobStatus.FAILED)

    assert (await house.kept(ended)).exit_code == 3
    assert (await house.kept(lost)).transitions[-1].reason == Reason.NOT_FOUND
    house.engine.report(exited(going))
    await house.until_it_is(going, JobStatus.SUCCEEDED)
    assert len(house.engine.started) == 3


async def test_a_start_that_came_to_nothing_unheard_is_asked_for_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.background.PAUSE_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = await house.submit()
    house.engine.started.clear()

    house.engine.break_off()

    await house.until_started(job)
    house.engine.report(started(job))
    await house.until_it_is(job, JobStatus.RUNNING)


async def test_a_job_to_be_stopped_whose_start_came_to_nothing_unheard_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.background.PAUSE_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = await house.submit()
    house.engine.lacks.add(RunRef(job.id))
    house.reconciler.stop(job, Reason.USER_REQUESTED)
    async with house.engine.asked:
        await house.engine.asked.wait_for(lambda: house.engine.stopped)

    house.engine.break_off()

    await house.until_it_is(job, JobStatus.CANCELLED)
    assert (await house.kept(job)).exit_code is None


async def test_a_comparison_that_fails_is_made_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.background.PAUSE_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = await house.submit()
    house.engine.report(started(job))
    await house.until_it_is(job, JobStatus.RUNNING)
    tries = 0

    async def resync(refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionResetError("the engine is away")
        return {RunRef(job.id): RunState(exited=exited(job))}

    monkeypatch.setattr(house.engine, "resync", resync)
    house.engine.break_off()

    await house.until_it_is(job, JobStatus.SUCCEEDED)
    assert tries == 3


async def test_what_happened_since_the_engine_was_asked_is_not_undone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.background.PAUSE_SECONDS", 0.0)
    await house.reconciler.adopt([], {})
    job = await house.submit(RestartPolicy.ALWAYS)
    house.engine.report(started(job))
    await house.until_it_is(job, JobStatus.RUNNING)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def resync(refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        assert list(refs) == [RunRef(job.id)]
        asked.set()
        await answer.wait()
        return {RunRef(job.id): RunState(exited=exited(job))}

    monkeypatch.setattr(house.engine, "resync", resync)
    house.engine.break_off()
    await asked.wait()
    late = new_job()  # of which the engine was not asked
    add(house.database, late)
    house.reconciler.submitted(late)
    await house.until_started(late)
    answer.set()

    again = await house.until(job, lambda one: one.run == 1)
    await house.until_started(again)
    house.engine.report(started(late))
    await house.until_it_is(late, JobStatus.RUNNING)
    assert [ref for ref in house.engine.started if ref.job_id == late.id] == [RunRef(late.id)]
