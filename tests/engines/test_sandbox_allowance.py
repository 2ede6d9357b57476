"""A run makes its supervisor work, and bounded is how much of a processor that takes."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.engines.sandbox.allowance import LONGEST_PAUSE, Allowance
from neuro.engines.sandbox.loop import READ, Loop

pytestmark = pytest.mark.pure


@given(
    cores=st.floats(0.1, 4),
    rounds=st.lists(st.tuples(st.floats(0, 0.004), st.floats(0, 1)), min_size=1, max_size=200),
)
def test_all_that_is_taken_is_the_burst_and_a_share_of_the_time(
    cores: float, rounds: list[tuple[float, float]]
) -> None:
    allowance = Allowance(cores, burst=1.0)
    began = now = time.monotonic()
    before = used = time.process_time()

    for work, wait in rounds:
        now, used = now + work + wait, used + work
        pause = allowance.pause(now, used)
        assert 0 <= pause <= LONGEST_PAUSE
        now += pause

    one_round = 0.004
    assert used - before <= 1.0 + (now - began) * cores + one_round + 1e-6


def test_whoever_has_taken_little_never_waits() -> None:
    allowance = Allowance(0.1, burst=1.0)
    now, used = time.monotonic(), time.process_time()

    for _ in range(1000):
        now, used = now + 1, used + 0.05
        assert allowance.pause(now, used) == 0


@pytest.mark.parametrize("cores", [0.05, 0.2])
def test_a_loop_that_is_always_called_takes_no_more_than_its_allowance(cores: float) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"always ready")
    loop = Loop(Allowance(cores, burst=0.05))
    rounds: list[float] = []

    def work(_: int) -> None:
        until = time.process_time() + 0.001
        while time.process_time() < until:
            pass
        rounds.append(time.process_time())

    def end() -> None:
        loop.running = False

    loop.watch(reader, READ, work)
    loop.after(1.0, end)
    began, before = time.monotonic(), time.process_time()
    loop.run()
    took, used = time.monotonic() - began, time.process_time() - before
    os.close(reader)
    os.close(writer)

    assert used <= 0.05 + cores * took + 0.02
    assert len(rounds) > 10
