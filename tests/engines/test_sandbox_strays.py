"""Sandboxes that nobody holds any more are found by their mark, where there are no groups."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import RunRef
from neuro.engines.sandbox import SandboxEngine, SandboxSettings, launch, layout, leftovers, machine
from tests.engines.harness import Runs, eventually


@pytest_asyncio.fixture
async def groupless(folder: Path, tmp_path: Path) -> AsyncIterator[Runs]:
    (tmp_path / "no-groups").mkdir()
    engine = SandboxEngine(folder, SandboxSettings(cgroup_root=str(tmp_path / "no-groups")))
    await engine.open()
    runs = Runs(engine)
    yield runs
    await runs.stop_all()
    await runs.close()


def leave_stray(mark: str) -> None:
    """A sandbox whose outer process dies before its init may go on: nobody reads what it tells."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [machine.find_bwrap(), "--unshare-user", "--unshare-pid", "--die-with-parent"]
    command += ["--info-fd", str(writing), "--ro-bind", "/", "/", "sleep", "600"]
    done = subprocess.run(command, env={launch.MARK: mark}, pass_fds=[writing], check=False)
    os.close(writing)
    assert done.returncode < 0
    assert sandboxes(mark)


def sandboxes(mark: str) -> list[int]:
    """The processes of bubblewrap's own that bear ``mark``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "environ").read_bytes() == f"{launch.MARK}={mark}\0".encode():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("known", [True, False])
async def test_the_sandbox_of_a_lost_run_is_killed_by_the_next_server(
    groupless: Runs, folder: Path, known: bool
) -> None:
    ref = RunRef("job-stray")
    os.makedirs(layout.run_folder(str(folder), ref.job_id, ref.run))
    mark = launch.mark(str(folder), ref.job_id, ref.run)
    leave_stray(mark)

    await groupless.engine.adopt([ref] if known else [])

    await eventually(lambda: not sandboxes(mark), "the sandbox is still there")


async def test_the_sandbox_of_a_run_that_goes_on_is_not_touched(
    groupless: Runs, folder: Path
) -> None:
    ref = await groupless.start("sh", "-c", "echo ready; read line; sleep 0.2; echo alive")
    await groupless.says(ref.job_id, b"ready")
    mark = launch.mark(str(folder), ref.job_id, ref.run)
    assert sandboxes(mark)

    leftovers.kill_strays(str(folder))

    assert (await groupless.finished(ref)).lines == ["ready", "alive"]


async def test_the_sandboxes_of_another_engine_are_not_touched(
    groupless: Runs, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    mark = launch.mark(str(tmp_path / "other"), "job-stray", 0)
    leave_stray(mark)

    leftovers.kill_strays(str(folder))

    assert sandboxes(mark)
    leftovers.kill_strays(str(tmp_path / "other"))
    await eventually(lambda: not sandboxes(mark), "the sandbox is still there")


@pytest.mark.parametrize("mark", ["", "no mark", "1:2/../0", "1:2/job/x"])
async def test_a_mark_that_is_none_is_no_harm(groupless: Runs, folder: Path, mark: str) -> None:
    leave_stray(mark)

    leftovers.kill_strays(str(folder))

    (stray,) = sandboxes(mark)
    os.kill(stray, 9)
