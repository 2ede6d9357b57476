"""What is made before a run asks for it: used once, and gone with the zygote."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from neuro.engines.base import Mount
from tests.engines.harness import EngineKind, Runs, eventually
from tests.engines.test_sandbox_engine import processes


def waiting(folder: Path) -> list[int]:
    """The processes of berths: a supervisor and the beginning of a sandbox each."""
    return processes("neuro-berth", folder)


async def test_nothing_waits_before_the_first_run(runs: Runs, folder: Path) -> None:
    assert waiting(folder) == []

    await runs.run("true")

    assert waiting(folder)


async def test_those_of_a_killed_zygote_go_with_it(
    runs: Runs, folder: Path, kind: EngineKind
) -> None:
    done = await runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 4, "berths are not made")
    old = waiting(folder)
    (zygote,) = processes("neuro-zygote", folder)

    os.kill(zygote, signal.SIGKILL)

    await eventually(lambda: not set(old) & set(waiting(folder)), "berths stay")
    await runs.engine.remove(done.ref.job_id)
    await eventually(lambda: not kind.traces(folder), f"left: {kind.traces(folder)}")


async def test_a_run_begins_where_what_waited_was_killed(runs: Runs, folder: Path) -> None:
    await runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 4, "berths are not made")

    for pid in waiting(folder):
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not waiting(folder), "they are not gone")
    done = await runs.run("echo", "hello")

    assert (done.code, done.output) == (0, b"hello\n")


async def test_many_volumes_are_more_than_one_message(runs: Runs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("here")
    mounts = [
        Mount(source=str(source), target=f"/volume/{number}", read_only=True)
        for number in range(230)
    ]

    done = await runs.shell("cat /volume/*/file", mounts=tuple(mounts))

    assert done.output == b"here" * 230
