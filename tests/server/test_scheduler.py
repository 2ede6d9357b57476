"""The scheduler's one promise, checked on random queues: nobody ahead is ever delayed."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.resources import GIB, NOTHING, Amount
from neuro.server.jobs.scheduler import (
    Queue,
    Room,
    Waiting,
    choose,
    explain,
    explain_among,
    place,
)
from tests.server.nodes import one_room

SMALL = Amount(cpu=1.0, memory=GIB)
LARGE = Amount(cpu=4.0, memory=4 * GIB)
WITH_GPU = Amount(cpu=1.0, memory=GIB, gpu=1)


def waiting(*amounts: Amount, urgency: int = 0) -> list[Waiting]:
    return [
        Waiting(urgency=urgency, sequence=number, id=f"job-{number}", amount=amount)
        for number, amount in enumerate(amounts)
    ]


def chosen(jobs: list[Waiting], free: Amount) -> list[int]:
    return [job.sequence for job in started(jobs, free)]


def started(jobs: list[Waiting], free: Amount) -> list[Waiting]:
    """On a single node."""
    return [job for job, _ in choose(jobs, one_room(free))]


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
    assert queue.count_ahead(low) == 1


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

    assert choose(queue, one_room(free), queue.kinds) == choose(left, one_room(free))
    assert queue.kinds == len({job.amount for job in left})


def test_a_look_ends_where_a_job_of_each_kind_waits() -> None:
    queue = Queue()
    for job in waiting(SMALL, *[WITH_GPU] * 1000):
        queue.add(job)
    looked_at = iter(queue)

    begun = choose(looked_at, one_room(Amount(cpu=1e6, memory=1 << 60, gpu=3)), queue.kinds)

    assert [job.id for job, _ in begun] == ["job-0", "job-1", "job-2", "job-3"]
    assert next(looked_at, None) is None, "more small ones could follow"
    queue.remove(begun[0][0])
    looked_at = iter(queue)
    choose(looked_at, one_room(Amount(cpu=1e6, memory=1 << 60, gpu=0)), queue.kinds)
    assert next(looked_at).id == "job-2"


@given(st.lists(amounts, max_size=8), free_amounts)
def test_what_starts_fits_together(queue: list[Amount], free: Amount) -> None:
    taken = sum((job.amount for job in started(waiting(*queue), free)), NOTHING)

    assert taken.fits(free)


@given(st.lists(amounts, min_size=1, max_size=8), free_amounts, free_amounts)
def test_a_job_that_passes_delays_nobody_ahead(
    queue: list[Amount], free: Amount, released: Amount
) -> None:
    """Whatever is released later: all ahead that would fit without the passing job, fit with it."""
    jobs = waiting(*queue)
    begun = {job.sequence for job in started(jobs, free)}

    for passing in sorted(begun):
        ahead = [job for job in jobs if job.sequence < passing and job.sequence not in begun]
        before = sum(
            (job.amount for job in jobs if job.sequence in begun and job.sequence < passing),
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
        assert started(jobs, free)[0] is jobs[0]


def room(name: str, cpu: float, gpu: int = 0, *, whole: Amount | None = None) -> Room:
    free = Amount(cpu=cpu, memory=8 * GIB, gpu=gpu)
    return Room(name, whole or free, free)


def test_a_job_goes_where_it_leaves_least_and_gpus_are_spared_first() -> None:
    rooms = [room("gpus", 1, 2), room("large", 8), room("small", 2), room("twin", 2)]

    assert place(SMALL, rooms) == "small"
    assert place(SMALL, rooms[::-1]) == "small"
    assert place(LARGE, rooms) == "large"
    assert place(WITH_GPU, rooms) == "gpus"
    assert place(Amount(cpu=9, memory=GIB), rooms) is None


def test_nodes_together_hold_no_job_that_none_of_them_does() -> None:
    assert choose(waiting(LARGE), [room("a", 2), room("b", 2)]) == []


def test_a_job_that_no_node_could_ever_hold_keeps_nobody_waiting() -> None:
    jobs = waiting(Amount(cpu=1, memory=GIB, gpu=4), SMALL)

    assert choose(jobs, [room("a", 2, 2)]) == [(jobs[1], "a")]


def test_a_job_that_waits_is_kept_room_for_wherever_it_could_be() -> None:
    large = Amount(cpu=8, memory=8 * GIB)
    rooms = [room("a", 2, whole=large), room("b", 3, whole=large), room("c", 2)]
    jobs = waiting(LARGE, SMALL, SMALL, SMALL)

    assert choose(jobs, rooms) == [(jobs[1], "c"), (jobs[2], "c")]


def test_the_explanation_is_of_the_node_that_lacks_least() -> None:
    large = Amount(cpu=8, memory=8 * GIB, gpu=2)
    rooms = [room("a", 1, 0, whole=large), room("b", 0.5, 1, whole=large)]
    asked = Amount(cpu=1, memory=GIB, gpu=2)

    assert explain_among(asked, rooms, 1) == (
        "Waits for 1 CPU (0.5 free) and 2 GPUs (1 free) on one node; 1 ahead"
    )
    assert explain_among(SMALL, rooms, 0) == "Waits for its turn"
    assert explain_among(Amount(cpu=1, memory=GIB, gpu=3), rooms, 0) == (
        "Waits for a node with 1 CPU, 1.0 GiB memory and 3 GPUs: none is that large now"
    )
    assert "none is that large now" in explain_among(SMALL, [], 0)


rooms_of_nodes = st.lists(st.tuples(free_amounts, free_amounts), max_size=4).map(
    lambda pairs: [
        Room(f"node-{number}", free + taken, free) for number, (free, taken) in enumerate(pairs)
    ]
)


@given(st.lists(amounts, max_size=8), rooms_of_nodes, st.randoms())
def test_what_starts_fits_on_its_node_whatever_order_the_nodes_are_in(
    queue: list[Amount], rooms: list[Room], random: Random
) -> None:
    jobs = waiting(*queue)
    chosen = choose(jobs, rooms)

    for one in rooms:
        here = sum((job.amount for job, node in chosen if node == one.node), NOTHING)
        assert here.fits(one.free)
    shuffled = random.sample(rooms, len(rooms))
    assert choose(jobs, shuffled) == chosen


@given(st.lists(amounts, max_size=8), rooms_of_nodes, free_amounts)
def test_a_job_that_passes_takes_nothing_that_one_ahead_could_use(
    queue: list[Amount], rooms: list[Room], released: Amount
) -> None:
    """Whatever is released later on a node: all ahead that would fit there, fit as well."""
    jobs = waiting(*queue)
    begun = {job.sequence: node for job, node in choose(jobs, rooms)}

    for one in rooms:
        here = [number for number, node in begun.items() if node == one.node]
        for passing in here:
            ahead = [job for job in jobs if job.sequence < passing and job.sequence not in begun]
            able = [job.amount for job in ahead if job.amount.fits(one.whole)]
            before = sum((jobs[number].amount for number in here if number < passing), NOTHING)
            later = one.free - before + released
            needed = sum(able, NOTHING)
            if needed.fits(later):
                assert needed.fits(later - jobs[passing].amount)


@given(st.lists(amounts, min_size=1, max_size=8), rooms_of_nodes)
def test_the_first_in_the_queue_starts_wherever_it_fits(
    queue: list[Amount], rooms: list[Room]
) -> None:
    jobs = waiting(*queue)
    fits = [one.node for one in rooms if jobs[0].amount.fits(one.free)]

    chosen = choose(jobs, rooms)
    assert bool(fits) == (bool(chosen) and chosen[0][0] is jobs[0])
    assert not fits or chosen[0][1] in fits
