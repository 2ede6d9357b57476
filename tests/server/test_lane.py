"""What jobs hold of an engine's nodes, while these come, go and drain."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from neuro.domain.resources import GIB, NOTHING, Amount
from neuro.engines.base import Node
from neuro.server.jobs.lane import Allotment, Lane
from neuro.server.jobs.record import JobRecord
from tests.server.life import new_job
from tests.server.nodes import node

GPUS = node("gpus", 4, 4, "a", "b")
PLAIN = node("plain", 4, 4)


def job(number: int, cpu: float = 1, gpu: int = 0) -> JobRecord:
    amount = Amount(cpu=cpu, memory=GIB, gpu=gpu)
    made = new_job()
    return replace(
        made, id=f"job-{number}", specification=replace(made.specification, amount=amount)
    )


def given_to(lane: Lane, record: JobRecord) -> JobRecord:
    """A job with the place that it was given."""
    node = lane.find(record.specification.amount)
    assert node is not None
    place = lane.take(record, node)
    return replace(record, node=place.node, gpus=place.gpus)


def test_a_job_is_given_gpus_of_its_node_by_their_names() -> None:
    lane = Lane([PLAIN, GPUS])

    first, second = given_to(lane, job(1, gpu=1)), given_to(lane, job(2, gpu=1))

    assert [(one.node, one.gpus) for one in (first, second)] == [("gpus", ("a",)), ("gpus", ("b",))]
    assert lane.find(job(3, gpu=1).specification.amount) is None
    lane.give_back(first)
    assert given_to(lane, job(3, gpu=1)).gpus == ("a",)


def test_a_node_that_drains_takes_no_more_and_lets_go_of_nothing() -> None:
    lane = Lane([PLAIN])
    one = given_to(lane, job(1, cpu=2))

    lane.offer([replace(PLAIN, open=False)])

    assert (lane.free, lane.taken) == (NOTHING, one.specification.amount)
    assert lane.find(job(2).specification.amount) is None
    lane.offer([PLAIN])
    assert lane.free == Amount(cpu=2, memory=3 * GIB)


@pytest.mark.parametrize(
    "left", [[replace(GPUS, open=False)], [], [replace(GPUS, gpus=("b",))]], ids=str
)
def test_the_next_run_of_a_job_that_has_lost_its_place_is_elsewhere(left: list[Node]) -> None:
    lane = Lane([GPUS])
    one = given_to(lane, job(1, gpu=1))
    assert lane.place_for(one) == Allotment("gpus", ("a",))

    lane.offer(left)
    if left == [replace(GPUS, gpus=("b",))]:
        assert lane.place_for(one) == Allotment("gpus", ("b",))
        return
    assert lane.place_for(one) == "Its node takes no more runs, and no other node has room for it"
    lane.offer([*left, node("other", 4, 4, "c")])
    place = lane.place_for(one)
    assert place == Allotment("other", ("c",))

    assert lane.taken == one.specification.amount
    lane.give_back(one)
    assert lane.taken == NOTHING
    assert lane.free.gpu == 1


def test_what_was_held_before_a_node_was_written_down_is_of_the_only_one() -> None:
    lane = Lane([GPUS])
    old = replace(job(1, gpu=1), gpus=("a",))

    lane.hold(old)

    assert lane.free == Amount(cpu=3, memory=3 * GIB, gpu=1)
    assert lane.place_for(old) == Allotment("gpus", ("a",))


def test_what_an_engine_had_may_come_back() -> None:
    lane = Lane([GPUS, PLAIN])

    lane.offer([PLAIN])

    assert lane.capacity == PLAIN.amount
    assert lane.most == Amount(cpu=8, memory=8 * GIB, gpu=2)
    assert lane.explain(job(1, gpu=1).specification.amount, 0) == (
        "Waits for a node with 1 CPU, 1.0 GiB memory and 1 GPU: none is that large now"
    )


def changed(one: Node, random: Random) -> Node:
    """A node that may drain, or have lost GPUs."""
    return replace(one, open=random.random() < 0.7, gpus=one.gpus[random.randrange(2) :])


@given(st.randoms(use_true_random=False))
def test_no_gpu_is_two_jobs_and_no_node_gives_more_than_it_has(random: Random) -> None:
    every = [node(name, 4, 4, *(f"{name}{i}" for i in range(2))) for name in "xyz"]
    lane, held = Lane(every), dict[str, JobRecord]()
    for number in range(60):
        match random.randrange(4):
            case 0 | 1:
                new = job(number, random.choice([1, 2, 3]), random.choice([0, 1, 2]))
                before = {room.node: room.free for room in lane.rooms}
                where = lane.find(new.specification.amount)
                if where is not None:
                    assert new.specification.amount.fits(before[where])
                    held[new.id] = given_to(lane, new)
                    assert held[new.id].node == where
            case 2 if held:
                lane.give_back(held.pop(random.choice(sorted(held))))
            case _:
                lane.offer([changed(one, random) for one in every if random.random() < 0.8])
                for one in list(held.values()):
                    if random.random() < 0.5:
                        place = lane.place_for(one)
                        if isinstance(place, Allotment):
                            held[one.id] = replace(one, node=place.node, gpus=place.gpus)
        seen = [(one.node, gpu) for one in held.values() for gpu in one.gpus or ()]
        assert len(seen) == len(set(seen))
        assert lane.taken == sum((one.specification.amount for one in held.values()), NOTHING)
    lane.offer(every)
    for one in held.values():
        lane.give_back(one)
    assert (lane.taken, lane.free) == (NOTHING, lane.capacity)
