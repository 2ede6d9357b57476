"""``resync`` tells how runs are: at any time, however often, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from neuro.engines.base import Engine, ExitCause, Exited, RunRef, RunState, Started
from tests.engines.harness import PATIENCE, EngineKind, Has, Runs, needs, spec


async def state_of(engine: Engine, ref: RunRef) -> RunState | None:
    states = await engine.resync([ref])
    assert set(states) <= {ref}
    return states.get(ref)


async def end_of(engine: Engine, ref: RunRef) -> RunState:
    """A run as it is once it is over; until then it is never unknown."""
    async with asyncio.timeout(PATIENCE):
        while True:
            state = await state_of(engine, ref)
            assert state is not None, "the engine does not know a run that it has"
            if state.exited is not None:
                return state
            await asyncio.sleep(0)


async def test_a_run_is_as_its_events_told(runs: Runs) -> None:
    ref = RunRef("job-compared")
    assert await state_of(runs.engine, ref) is None

    await runs.engine.start(spec("sh", "-c", "sleep 600", job_id=ref.job_id))
    began = await runs.started(ref)
    assert [await state_of(runs.engine, ref) for _ in range(2)] == [RunState(started=began)] * 2

    await runs.engine.stop(ref, 0)
    exited = await runs.exited(ref)
    assert await state_of(runs.engine, ref) == RunState(started=began, exited=exited)

    await runs.engine.remove(ref.job_id)
    assert await state_of(runs.engine, ref) is None


async def test_what_is_not_asked_for_goes_on(runs: Runs) -> None:
    done = await runs.run("echo", "kept")
    going = await runs.start("sh", "-c", "echo ready; sleep 600")
    await runs.says(going.job_id, b"ready")

    assert await runs.engine.resync([]) == {}
    assert await runs.engine.resync([RunRef("job-never"), RunRef(done.ref.job_id, 1)]) == {}

    assert await runs.output(done.ref.job_id) == b"kept\n"
    assert await state_of(runs.engine, going) == RunState(started=await runs.started(going))


async def test_comparing_while_runs_begin_and_end_changes_nothing(runs: Runs) -> None:
    specs = [spec("sh", "-c", f"echo {i}; exit {i}", cpu=0.1) for i in range(8)]
    refs = [RunRef(one.job_id) for one in specs]
    seen: dict[RunRef, list[RunState]] = {ref: [] for ref in refs}

    async def compare() -> None:
        while not all(states and states[-1].exited for states in seen.values()):
            for ref, state in (await runs.engine.resync(refs)).items():
                seen[ref].append(state)
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(compare())
        for one in specs:
            group.create_task(runs.engine.start(one))
    for i, ref in enumerate(refs):
        done = await runs.finished(ref)
        assert (done.code, done.lines) == (i, [str(i)])
        assert [type(event) for event in runs.told if event.ref == ref] == [Started, Exited]
        assert {state.exited for state in seen[ref]} <= {None, done.exited}


async def test_an_end_that_nobody_was_told_of_is_found(own_runs: Runs) -> None:
    await own_runs.hear_no_more()
    begun = spec("sh", "-c", "echo end; exit 3")
    await own_runs.engine.start(begun)

    state = await end_of(own_runs.engine, RunRef(begun.job_id))

    assert state.started is not None
    assert state.exited is not None
    assert (state.exited.exit_code, state.exited.cause) == (3, ExitCause.ERROR)
    assert await own_runs.output(begun.job_id) == b"end\n"


@needs(Has.PROGRAMS, Has.SUPERVISORS)
async def test_a_run_whose_supervision_is_killed_is_never_unknown(
    kind: EngineKind, folder: Path, own_runs: Runs
) -> None:
    ref = await own_runs.start("sh", "-c", "echo ready; exec sleep 600")
    await own_runs.says(ref.job_id, b"ready")
    supervisor = kind.supervisor_of(folder, ref)
    assert supervisor is not None

    os.kill(supervisor, signal.SIGKILL)
    state = await end_of(own_runs.engine, ref)

    assert state.exited is not None
    assert state.exited.cause is ExitCause.LOST
    assert (await own_runs.exited(ref)).cause is ExitCause.LOST
