"""Several engines on one folder, as several servers have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from neuro.engines.base import RunRef
from tests.engines.harness import Runs, spec
from tests.engines.plain import supervisor
from tests.engines.plain.engine import PlainEngine


@pytest_asyncio.fixture
async def both(folder: Path) -> AsyncIterator[tuple[Runs, Runs]]:
    """Two that know nothing of each other."""
    engines = PlainEngine(folder), PlainEngine(folder)
    for engine in engines:
        await engine.open()
    one, other = (Runs(engine) for engine in engines)
    async with AsyncExitStack() as stack:
        stack.callback(supervisor.kill_all, str(folder))
        for runs in (one, other):
            stack.push_async_callback(runs.close)
            stack.push_async_callback(runs.stop_all)
        yield one, other


async def test_a_run_that_both_start_at_once_runs_once(both: tuple[Runs, Runs]) -> None:
    for _ in range(5):
        begun = spec("sh", "-c", "echo ran")

        await asyncio.gather(*(runs.engine.start(begun) for runs in (*both, *both)))
        ends = [await runs.finished(RunRef(begun.job_id)) for runs in both]

        assert [end.output for end in ends] == [b"ran\n"] * 2


async def test_either_follows_enters_and_stops_what_the_other_started(
    both: tuple[Runs, Runs],
) -> None:
    one, other = both
    ref = await one.start("sh", "-c", "echo ready; sleep 600")

    assert (await other.engine.adopt([ref]))[ref].exited is None
    await other.says(ref.job_id, b"ready")
    assert await other.execute(ref, "echo", "inside") == (0, b"inside\n", b"")
    assert await other.engine.stop(ref, 5)

    assert (await one.exited(ref)).exit_code == 143
    assert (await other.exited(ref)).exit_code == 143


async def test_what_was_stopped_before_it_began_does_not_begin(both: tuple[Runs, Runs]) -> None:
    one, other = both
    begun = spec("sh", "-c", "echo ran")

    assert not await one.engine.stop(RunRef(begun.job_id), 0)
    await other.engine.start(begun)

    assert await other.engine.adopt([RunRef(begun.job_id)]) == {}
