"""The reconciler: what was asked for happens, even if the database is away for a while."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from neuro.domain.errors import Unavailable
from neuro.domain.jobs import JobStatus
from neuro.domain.resources import Amount
from neuro.engines.base import RunSpec
from neuro.engines.sandbox import SandboxEngine, SandboxSettings
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.jobs import tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer
from tests.engines.memory import MemoryEngine
from tests.server.nodes import one_node
from tests.server.test_tables import add, record
from tests.server.test_writer import rename_table

GIB = 1 << 30


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SandboxEngine]:
    """An engine on a machine with one GPU."""
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidiactl"):
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    engine = SandboxEngine(tmp_path / "engine", SandboxSettings(device_folder=str(devices)))
    await engine.open()
    yield engine
    await engine.close()


async def spec_of(job: JobRecord) -> RunSpec:
    return RunSpec(
        job_id=job.id,
        run=job.run,
        image="ubuntu",
        argv=("true",),
        cpu=1,
        memory=GIB,
        gpus=job.gpus or (),
    )


@pytest.mark.root
async def test_a_job_that_is_given_gpus_while_the_database_is_away_starts_later(
    database: Database, engine: SandboxEngine
) -> None:
    queued = record(over=False)
    wants_a_gpu = replace(queued.specification, amount=Amount(cpu=1, memory=GIB, gpu=1))
    # Between two runs; nobody knows its GPUs.
    job = replace(queued, specification=wants_a_gpu, phase=Phase.STARTING, run=1, gpus=None)
    add(database, job)
    board = Board({"sandbox": one_node(Amount(cpu=4, memory=4 * GIB, gpu=1))})
    writer = Writer(database)
    writer.start(Background())
    reconciler = Reconciler(board, writer, {"sandbox": engine}, spec_of, Background(), stop_grace=0)
    rename_table(database, "jobs", "away")

    await reconciler.adopt([job], {})
    await board.wait_until(job, lambda one: one.gpus is not None)
    with pytest.raises(Unavailable):
        await writer.flush()
    rename_table(database, "away", "jobs")

    async with asyncio.timeout(15):
        over = await board.wait_until(job, lambda one: not one.is_active)
    assert over.status is JobStatus.SUCCEEDED
    await reconciler.close()
    await writer.close()


async def test_no_run_is_asked_for_before_the_database_knows_of_it(database: Database) -> None:
    known: list[Phase] = []

    class Asking(MemoryEngine):
        async def start(self, spec: RunSpec) -> None:
            kept = database.write_now(lambda c: tables.get_job(c, spec.job_id))
            assert kept is not None
            known.append(kept.phase)
            await super().start(spec)

    board = Board({"sandbox": one_node(Amount(cpu=1, memory=GIB))})
    writer = Writer(database)
    engine: Any = Asking()
    reconciler = Reconciler(board, writer, {"sandbox": engine}, spec_of, Background(), stop_grace=0)
    await reconciler.adopt([], {})
    ahead, job = record(over=False), record(over=False)
    board.add(ahead)
    waits = board.reserve(job)
    add(database, waits)

    board.remove(ahead)
    reconciler.schedule()  # the look at the queue is due before the job is there
    reconciler.submitted(waits)
    for _ in range(20):  # turns of the event loop, in which nothing is written yet
        await asyncio.sleep(0)
    writer.start(Background())
    async with asyncio.timeout(15):
        await board.wait_until(job, lambda one: one.phase > Phase.STARTING)

    assert known == [Phase.STARTING]
    await reconciler.close()
    await writer.close()


@pytest.mark.parametrize(
    "trouble", [Unavailable("The server's disk is full."), OSError(28, "No space left on device")]
)
async def test_a_job_outlives_trouble_of_the_server_at_its_start(
    database: Database, engine: SandboxEngine, trouble: Exception
) -> None:
    job = replace(record(over=False), phase=Phase.STARTING)
    add(database, job)
    board = Board({"sandbox": one_node(Amount(cpu=4, memory=4 * GIB))})
    writer = Writer(database)
    writer.start(Background())
    troubles = [trouble]

    async def make_spec(job: JobRecord) -> RunSpec:
        if troubles:
            raise troubles.pop()
        return await spec_of(job)

    reconciler = Reconciler(
        board, writer, {"sandbox": engine}, make_spec, Background(), stop_grace=0
    )
    await reconciler.adopt([job], {})

    async with asyncio.timeout(30):
        over = await board.wait_until(job, lambda one: not one.is_active)
    assert over.status is JobStatus.SUCCEEDED
    assert any("tries again" in (one.description or "") for one in over.transitions)
    await reconciler.close()
    await writer.close()
