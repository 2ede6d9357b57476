"""Engines that place runs themselves: jobs are handed over at once, and wait in their queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from neuro.domain.jobs import JobStatus, Reason
from neuro.domain.resources import NOTHING, Amount
from neuro.engines.base import RunRef
from neuro.server.database.engine import Database
from neuro.server.jobs.lane import Allotment, Lane
from neuro.server.jobs.record import JobRecord
from tests.engines.memory import QueueEngine
from tests.server.nodes import one_node
from tests.server.test_tables import record
from tests.server.test_troubled_engine import GIB, Life


def waits(gpu: int = 0) -> JobRecord:
    """A job that takes most of what one job can have, and lasts until it is stopped."""
    made = record(over=False)
    amount = Amount(cpu=2, memory=2 * GIB, gpu=gpu)
    return replace(made, specification=replace(made.specification, tags=["wait"], amount=amount))


async def until(server: Life, job: JobRecord, holds: Callable[[JobRecord], bool]) -> JobRecord:
    async with asyncio.timeout(20):
        return await server.board.wait_until(job, holds)


async def is_handed_over(server: Life, *jobs: JobRecord) -> None:
    """The engine has them all."""
    engine: QueueEngine = server.engine  # type: ignore[assignment]
    async with asyncio.timeout(20):
        while not {RunRef(job.id) for job in jobs} <= {*engine.queue, *engine.states}:
            await asyncio.sleep(0.001)


def last(job: JobRecord) -> tuple[JobStatus, str | None, str | None]:
    step = job.transitions[-1]
    return step.status, step.reason, step.description


async def test_more_jobs_than_fit_are_handed_over_and_say_what_they_wait_for(
    database: Database,
) -> None:
    engine = QueueEngine(at_once=1)
    server = Life(database, engine)  # type: ignore[arg-type]
    await server.begin()
    jobs = [waits(), waits(), waits()]

    for job in jobs:
        server.submit(job)
    await is_handed_over(server, *jobs)
    queued = [await until(server, job, lambda one: last(one)[1] == "Queued") for job in jobs[1:]]

    assert [last(job) for job in queued] == [
        (JobStatus.PENDING, "Queued", "It is number 1 in the queue"),
        (JobStatus.PENDING, "Queued", "It is number 2 in the queue"),
    ]
    assert server.board.waits_for(queued[0]) is None  # it is the engine that says so
    assert server.board.lanes["sandbox"].taken == NOTHING

    server.reconciler.stop(jobs[0], Reason.USER_REQUESTED)
    await until(server, jobs[1], lambda one: one.run_started)
    await until(server, jobs[2], lambda one: (last(one)[2] or "").startswith("It is number 1"))
    for job in jobs[1:]:
        server.reconciler.stop(job, Reason.USER_REQUESTED)
    await server.is_quiet()
    assert set(engine.begun.values()) == {1}
    assert engine.live == []
    await server.end()


def test_which_gpus_a_job_sees_is_for_its_engine_to_know() -> None:
    lane = Lane(one_node(Amount(cpu=8, memory=8 * GIB, gpu=4)), delegated=True)

    assert lane.take(waits(gpu=4), "") == Allotment()
    assert lane.free.gpu == 4


async def test_a_server_that_begins_finds_jobs_in_the_queue(database: Database) -> None:
    engine = QueueEngine(at_once=1)
    server = Life(database, engine)  # type: ignore[arg-type]
    await server.begin()
    jobs = [waits(), waits()]
    for job in jobs:
        server.submit(job)
    await is_handed_over(server, *jobs)
    await server.writer.settle()
    await server.be_killed()

    server = Life(database, engine)  # type: ignore[arg-type]
    await server.begin()
    queued = await until(server, jobs[1], lambda one: last(one)[1] == "Queued")

    assert last(queued)[2] == "It is number 1 in the queue"
    assert server.board.lanes["sandbox"].taken == NOTHING
    for job in jobs:
        server.reconciler.stop(job, Reason.USER_REQUESTED)
    await server.is_quiet()
    assert engine.queue == {}
    await server.end()
