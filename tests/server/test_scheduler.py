"""The scheduler's one promise, checked on random queues: nobody ahead is ever delayed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.domain.resources import GIB, NOTHING, Amount
from neuro.server.jobs.scheduler import Queue, Waiting, choose, explain

SMALL = Amount(cpu=1.0, memory=GIB)
LARGE = Amount(cpu=4.0, memory=4 * GIB)
WITH_GPU = Amount(cpu=1.0, memory=GIB, gpu=1)


def waiting(*amounts: Amount, urgency: int = 0) -> list[Waiting]:
    return [
        Waiting(urgency=urgency, sequence=number, id=f"job-{number}", amount=amount)
        for number, amount in enumerate(amounts)
    ]


def chosen(jobs: list[Waiting], free: Amount) -> list[int]:
    return [job.sequence for job in choose(jobs, free)]


def test_jobs_start_in_the_order_of_their_submission() -> None:
    free = Amount(cpu=2.0, memory=8 * GIB)

    assert chosen(waiting(SMALL, SMALL, SMALL), free) == [0, 1]


def test_a_small_job_does_not_pass_a_large_one_that_waits_for_cpu() -> None:
    free = Amount(cpu=2.0, memory=8 * GIB)

    assert chosen(waiting(LARGE, SMALL), free) == []


def test_a_cpu_job_passes_one_that_waits_for_a_gpu_while_its_cpu_stays_free() -> None:
    free = Amount(cpu=2.0, memory=8 * GIB, gpu=0)

    assert chosen(waiting(WITH_GPU, SMALL, SMALL), free) == [1]


def test_a_job_without_a_gpu_starts_where_more_gpus_are_taken_than_there_are() -> None:
    free = Amount(cpu=2.0, memory=8 * GIB, gpu=-1)

    assert chosen(waiting(WITH_GPU, SMALL), free) == [1]


def test_a_higher_priority_goes_first() -> None:
    queue = Queue()
    (low,) = waiting(SMALL)
    high = Waiting(urgency=-2, sequence=7, id="job-high", amount=SMALL)

    queue.add(low)
    queue.add(high)

    assert [job.id for job in queue] == ["job-high", "job-0"]
    assert queue.place(low) == 1


def test_a_removed_job_is_not_in_the_queue_and_removing_it_twice_changes_nothing() -> None:
    queue = Queue()
    first, second = waiting(SMALL, SMALL)
    queue.add(first)
    queue.add(second)

    queue.remove(first)
    queue.remove(first)

    assert [job.id for job in queue] == ["job-1"]


def test_the_explanation_has_the_numbers_and_how_many_are_ahead() -> None:
    free = Amount(cpu=0.5, memory=8 * GIB)

    assert explain(WITH_GPU, free, 3) == "Waits for 1 CPU (0.5 free) and 1 GPU (0 free); 3 ahead"
    assert explain(SMALL, Amount(cpu=4, memory=8 * GIB), 0) == "Waits for its turn"


amounts = st.builds(
    Amount,
    cpu=st.integers(1, 6).map(float),
    memory=st.integers(1, 6).map(lambda count: count * GIB),
    gpu=st.integers(0, 2),
)
free_amounts = st.builds(
    Amount,
    cpu=st.integers(0, 8).map(float),
    memory=st.integers(0, 8).map(lambda count: count * GIB),
    gpu=st.integers(0, 3),
)


@settings(deadline=None)
@given(st.lists(amounts, max_size=12), free_amounts, st.sets(st.integers(0, 11)))
def test_a_queue_lets_the_same_jobs_start_as_a_list(
    asked: list[Amount], free: Amount, gone: set[int]
) -> None:
    jobs = waiting(*asked)
    queue = Queue()
    for job in jobs:
        queue.add(job)
    for number in gone & set(range(len(jobs))):
        queue.remove(jobs[number])
    left = [job for job in jobs if job.sequence not in gone]

    assert choose(queue, free, queue.kinds) == choose(left, free)
    assert queue.kinds == len({job.amount for job in left})


def test_a_look_ends_where_a_job_of_each_kind_waits() -> None:
    queue = Queue()
    for job in waiting(SMALL, *[WITH_GPU] * 1000):
        queue.add(job)
    looked_at = iter(queue)

    started = choose(looked_at, Amount(cpu=1e6, memory=1 << 60, gpu=3), queue.kinds)

    assert [job.id for job in started] == ["job-0", "job-1", "job-2", "job-3"]
    assert next(looked_at, None) is None, "more small ones could follow"
    queue.remove(started[0])
    looked_at = iter(queue)
    choose(looked_at, Amount(cpu=1e6, memory=1 << 60), queue.kinds)
    assert next(looked_at).id == "job-2"


@given(st.lists(amounts, max_size=8), free_amounts)
def test_what_starts_fits_together(queue: list[Amount], free: Amount) -> None:
    taken = sum((job.amount for job in choose(waiting(*queue), free)), NOTHING)

    assert taken.fits(free)


@given(st.lists(amounts, min_size=1, max_size=8), free_amounts, free_amounts)
def test_a_job_that_passes_delays_nobody_ahead(
    queue: list[Amount], free: Amount, released: Amount
) -> None:
    """Whatever is released later: all ahead that would fit without the passing job, fit with it."""
    jobs = waiting(*queue)
    started = {job.sequence for job in choose(jobs, free)}

    for passing in sorted(started):
        ahead = [job for job in jobs if job.sequence < passing and job.sequence not in started]
        before = sum(
            (job.amount for job in jobs if job.sequence in started and job.sequence < passing),
            NOTHING,
        )
        later = free - before + released
        needed = sum((job.amount for job in ahead), NOTHING)
        if needed.fits(later):
            assert needed.fits(later - jobs[passing].amount)


@given(st.lists(amounts, min_size=1, max_size=8), free_amounts)
def test_the_first_in_the_queue_starts_whenever_it_fits(queue: list[Amount], free: Amount) -> None:
    jobs = waiting(*queue)

    if jobs[0].amount.fits(free):
        assert choose(jobs, free)[0] is jobs[0]
