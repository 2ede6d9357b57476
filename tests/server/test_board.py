"""A job's resources before it is on the board."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from neuro.domain.jobs import Container, Priority, Resources
from neuro.domain.resources import GIB, NOTHING, Amount
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord, Specification
from tests.server.nodes import one_node


def board() -> Board:
    return Board({"sandbox": one_node(Amount(cpu=2, memory=2 * GIB))})


def record(cpu: float, number: int = 1) -> JobRecord:
    amount = Amount(cpu=cpu, memory=GIB // 4)
    resources = Resources(cpu=cpu, memory=GIB // 4, memory_mb=256, shm=False)
    return JobRecord(
        id=f"job-{number}",
        owner="alice",
        name=None,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=datetime.now(UTC),
        sequence=number,
        specification=Specification(
            container=Container(image="ubuntu", resources=resources), amount=amount
        ),
    )


def test_what_is_reserved_is_taken_once() -> None:
    on, job = board(), record(cpu=1)

    placed = on.reserve(job)
    on.add(placed)

    assert placed.placed
    assert on.lanes["sandbox"].taken == job.specification.amount
    on.remove(job)
    assert on.lanes["sandbox"].taken == NOTHING


def test_nothing_is_reserved_past_a_job_that_waits() -> None:
    on, small = board(), record(cpu=1, number=2)
    on.add(record(cpu=4))

    assert not on.reserve(small).placed


def test_nothing_is_reserved_that_is_not_free() -> None:
    on, first, second = board(), record(cpu=2), record(cpu=1, number=2)

    assert [on.reserve(job).placed for job in (first, second)] == [True, False]


def test_a_job_that_is_not_written_gives_back_what_was_reserved() -> None:
    on, job = board(), record(cpu=2)
    on.reserve(job)

    on.release(job)
    on.release(job)

    assert on.lanes["sandbox"].taken == NOTHING


def test_the_jobs_of_service_accounts_are_counted_with_those_of_their_owner() -> None:
    on = board()
    owners = ["anna", "anna--ci", "anna--robot", "anna-b"]
    jobs = [
        replace(record(cpu=1, number=number), owner=owner) for number, owner in enumerate(owners)
    ]

    for job in jobs:
        on.add(job)
    assert (on.jobs_of("anna"), on.jobs_of("anna-b")) == (3, 1)

    on.remove(jobs[1])
    assert on.jobs_of("anna") == 2


def test_of_many_jobs_that_wait_only_those_that_are_placed_are_looked_at() -> None:
    on = board()
    for number in range(1, 6):
        on.add(on.reserve(record(cpu=1, number=number)))

    assert sorted(job.id for job in on.placed()) == ["job-1", "job-2"]


def test_jobs_that_are_told_as_control_jobs_are_on_the_board() -> None:
    on, plain = board(), record(cpu=1)
    control = replace(
        record(cpu=1, number=2), specification=replace(plain.specification, control=True)
    )

    assert (on.reserve(control), [*on.controls()]) == (control, [])

    on.add(control)
    on.add(plain)
    assert [job.id for job in on.controls()] == [control.id]
