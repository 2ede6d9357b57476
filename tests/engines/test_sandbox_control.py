"""Control runs take nothing of the capacity: what all of them together may have has a limit."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import ExitCause, RunRef
from neuro.engines.sandbox import SandboxEngine, cgroups, hierarchies, layout
from neuro.engines.sandbox.settings import SandboxSettings
from tests.engines.harness import KINDS, MIB, PATIENCE, Runs, eventually

pytestmark = pytest.mark.root

HOLD = "import sys; held = bytes(b'x') * ({} << 20); print('held', flush=True); sys.stdin.read()"


def holding(mib: int) -> tuple[str, ...]:
    """A command that holds so much memory until it is stopped."""
    return "python3", "-c", HOLD.format(mib)


@pytest_asyncio.fixture
async def runs(folder: Path) -> AsyncIterator[Runs]:
    """An engine whose control runs may have 128 MiB together."""
    engine = SandboxEngine(folder, SandboxSettings(control_memory=128 * MIB))
    await engine.open()
    await engine.adopt([])
    if not hierarchies.find(_installation(folder)).version:
        await engine.close()
        pytest.skip("this machine has no control groups")
    runs = Runs(engine)
    yield runs
    await runs.stop_all()
    await runs.close()


def _installation(folder: Path) -> str:
    record = layout.read_record(f"{folder}/installation")
    assert record is not None
    return str(record["id"])


async def hold(runs: Runs, mib: int, *, control: bool = True) -> RunRef:
    ref = await runs.start(*holding(mib), control=control, stdin=True, memory=512 * MIB)
    await runs.says(ref.job_id, b"held")
    return ref


async def test_the_largest_of_the_control_runs_ends_where_all_have_too_much(runs: Runs) -> None:
    small = await hold(runs, 20)
    ordinary = await hold(runs, 160, control=False)

    large = await runs.run(*holding(160), control=True, stdin=True, memory=512 * MIB)

    assert large.exited.cause is ExitCause.OUT_OF_MEMORY
    usage = await runs.engine.usage(small.job_id)
    assert 20 * MIB < usage.memory < 128 * MIB
    for ref in (small, ordinary):
        assert (await runs.execute(ref, "true"))[0] == 0


@pytest.mark.parametrize("killed", [False, True])
async def test_a_control_run_leaves_nothing(runs: Runs, folder: Path, killed: bool) -> None:
    ref = await hold(runs, 1)
    state = layout.read_state(f"{layout.run_folder(str(folder), ref.job_id, 0)}/{layout.STATE}")
    assert state is not None
    group = cgroups.Group(cgroups.Groups(**state["groups"]), state["berth"])
    assert all(map(os.path.isdir, group.folders.values()))

    if killed:
        os.kill(KINDS["sandbox"].supervisor_of(folder, ref) or 0, 9)
    else:
        await runs.engine.stop(ref, 0)
    await runs.exited(ref, PATIENCE)

    await eventually(lambda: not any(map(os.path.exists, group.folders.values())), "a group stays")


async def test_the_next_engine_adopts_a_control_run_and_keeps_its_limit(
    runs: Runs, folder: Path
) -> None:
    ref = await hold(runs, 1)
    await runs.engine.close()

    second = SandboxEngine(folder, SandboxSettings(control_memory=128 * MIB))
    await second.open()
    states = await second.adopt([ref])
    later = Runs(second)

    assert states[ref].exited is None
    done = await later.run(*holding(160), control=True, stdin=True, memory=512 * MIB)
    assert done.exited.cause is ExitCause.OUT_OF_MEMORY
    assert (await later.execute(ref, "true"))[0] == 0
    await second.stop(ref, 0)
    await later.exited(ref)
    await later.close()
