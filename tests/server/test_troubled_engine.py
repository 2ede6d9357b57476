"""Whatever an engine does that it may do, and whenever the server is killed, each job ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import msgspec
import pytest
import structlog

from neuro.domain.jobs import JobStatus, Reason, RestartPolicy
from neuro.domain.resources import NOTHING, Amount
from neuro.engines.base import RunRef, RunSpec
from neuro.server import background
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.jobs import endings, life, lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer
from tests.engines.troubled import TroubledEngine
from tests.server.nodes import one_node
from tests.server.test_tables import record

GIB = 1 << 30
CAPACITY = Amount(cpu=3, memory=3 * GIB)
JOBS = 12
COMMANDS = (("exit", "0"), ("exit", "0"), ("exit", "3"), ("wait",))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Every trouble is told in the log, with its traceback: hundreds of them."""
    with structlog.testing.capture_logs() as logged:
        yield
    failed = [line["task"] for line in logged if line["event"] == "a background task failed"]
    assert set(failed) <= {"watch over the engine sandbox"}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOT_READY_SECONDS", "STOP_AGAIN_SECONDS"):
        monkeypatch.setattr(life, name, 0.001)
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(endings, "MAX_BACKOFF_SECONDS", 0.001)


class Life:
    """One life of a server: from its start to a kill, or to its end in order."""

    def __init__(self, database: Database, engine: TroubledEngine) -> None:
        self._database = database
        self.engine = engine
        self.background = Background()
        self.board = Board({"sandbox": one_node(CAPACITY)})
        self.writer = Writer(database)
        self.reconciler = Reconciler(
            self.board,
            self.writer,
            {"sandbox": engine},  # type: ignore[dict-item]  # what is asked here of one
            self._spec,
            self.background,
            stop_grace=0,
        )

    async def _spec(self, job: JobRecord) -> RunSpec:
        return RunSpec(
            job_id=job.id, run=job.run, image="ubuntu", argv=argv(job), cpu=1, memory=GIB
        )

    async def begin(self) -> None:
        self.writer.start(self.background)
        active = self._database.write_now(tables.active_jobs)
        runs = self._database.write_now(lambda c: lookups.runs_with_logs(c, "sandbox"))
        known = [RunRef(job_id, run) for job_id, run in runs]
        await self.reconciler.adopt(active, {"sandbox": known})

    def submit(self, job: JobRecord) -> None:
        reserved = self.board.reserve(job)
        sequence = self._database.write_now(lambda c: tables.insert_job(c, reserved))
        self.reconciler.submitted(msgspec.structs.replace(reserved, sequence=sequence))

    async def is_quiet(self) -> None:
        """Return once no job is active."""
        while len(self.board):
            job = next(iter(self.board))
            await self.board.wait_until(job, lambda one: not one.is_active)
        await self.writer.settle()

    async def be_killed(self) -> None:
        """End with nothing more written than is."""
        await self.reconciler.close()
        await self.background.close()

    async def end(self) -> None:
        await self.reconciler.close()
        await self.writer.close()


def argv(job: JobRecord) -> tuple[str, ...]:
    return tuple(job.specification.tags[0].split("-"))


def new_job(random: Random) -> JobRecord:
    made = record(over=False)
    specification = msgspec.structs.replace(
        made.specification,
        tags=["-".join(random.choice(COMMANDS))],
        amount=Amount(cpu=random.choice([1, 1, 2]), memory=GIB),
        restart_policy=random.choice([RestartPolicy.NEVER, RestartPolicy.NEVER, *RestartPolicy]),
    )
    return msgspec.structs.replace(made, specification=specification)


def never_ends(job: JobRecord) -> bool:
    """Whether it is for somebody to stop it."""
    policy, command = job.specification.restart_policy, argv(job)
    return (
        command == ("wait",)
        or policy is RestartPolicy.ALWAYS
        or (policy is RestartPolicy.ON_FAILURE and command == ("exit", "3"))
    )


@pytest.mark.parametrize("seed", range(20))
async def test_every_job_ends_once_as_it_should(database: Database, seed: int) -> None:
    random = Random(seed)
    engine = TroubledEngine(random)
    jobs = [new_job(random) for _ in range(JOBS)]
    kept_back = list(jobs)
    asked: set[str] = set()
    server = Life(database, engine)
    async with asyncio.timeout(60):
        await server.begin()
        while kept_back:
            for _ in range(random.randint(0, 3)):
                if kept_back:
                    server.submit(kept_back.pop())
            for job in list(server.board):
                if random.random() < 0.1:
                    asked.add(job.id)
                    server.reconciler.stop(job, Reason.USER_REQUESTED)
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.005]))
            await server.writer.settle()
            held = [job.specification.amount for job in server.board if job.placed]
            assert sum(amount.cpu for amount in held) <= CAPACITY.cpu
            # What is over has no run that goes on, or comes later.
            assert {RunRef(one.job_id, one.run) for one in engine.live} <= {
                RunRef(job.id, job.run) for job in server.board
            }
            if random.random() < 0.2:
                await server.be_killed()
                server = Life(database, engine)
                await server.begin()
        for job in list(server.board):
            if never_ends(job):
                asked.add(job.id)
                server.reconciler.stop(job, Reason.USER_REQUESTED)
        await server.is_quiet()

    assert server.board.lanes["sandbox"].taken == NOTHING
    for job in jobs:
        kept = database.write_now(lambda c, job_id=job.id: tables.get_job(c, job_id))
        assert kept is not None
        ends = [one for one in kept.transitions if one.status.is_finished]
        assert len(ends) == 1
        assert ends == [kept.transitions[-1]]
        if kept.status is JobStatus.CANCELLED:
            assert job.id in asked
        else:
            assert (kept.status, kept.exit_code) == (
                (JobStatus.SUCCEEDED, 0) if argv(job)[1] == "0" else (JobStatus.FAILED, 3)
            )
    assert set(engine.begun.values()) <= {1}
    assert engine.live == []
    await server.end()
