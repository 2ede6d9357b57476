"""What is made before a run asks for it: used once, and gone with the zygote."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.harness import EngineKind, Runs, eventually, mounted
from tests.engines.test_sandbox_engine import processes


def waiting(folder: Path) -> list[int]:
    """The supervisors of berths."""
    return processes("neuro-berth", folder)


async def test_nothing_waits_before_the_first_run(runs: Runs, folder: Path) -> None:
    assert waiting(folder) == []

    await runs.run("true")

    await eventually(lambda: bool(waiting(folder)), "no berth is made")


async def test_those_of_a_killed_zygote_go_with_it(
    runs: Runs, folder: Path, kind: EngineKind
) -> None:
    done = await runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 2, "berths are not made")
    old = waiting(folder)
    (zygote,) = processes("neuro-zygote", folder)

    os.kill(zygote, signal.SIGKILL)

    await eventually(lambda: not set(old) & set(waiting(folder)), "berths stay")
    await runs.engine.remove(done.ref.job_id)
    await eventually(lambda: not kind.traces(folder), f"left: {kind.traces(folder)}")


async def test_a_run_begins_where_what_waited_was_killed(runs: Runs, folder: Path) -> None:
    await runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 2, "berths are not made")

    killed = [os.pidfd_open(pid) for pid in waiting(folder)]
    for fd in killed:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    for fd in killed:
        await eventually(lambda fd=fd: select.select([fd], [], [], 0)[0], "they are not gone")
        os.close(fd)
    done = await runs.run("echo", "hello")

    assert (done.code, done.output) == (0, b"hello\n")


async def test_a_supervisor_looks_after_one_run_after_the_other(
    runs: Runs, folder: Path, kind: EngineKind
) -> None:
    seen: list[int] = []

    while len(seen) == len(set(seen)):
        done = await runs.run("true")
        seen.append(kind.supervisor_of(folder, done.ref))
        assert len(seen) < 20, "each run had a supervisor of its own"

    await eventually(lambda: not processes("neuro-idle", folder), "they wait for ever")


@pytest.mark.parametrize(
    ("left", "nothing"),
    [
        ("pass", True),
        ("os.fork() or os._exit(0); os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)", True),
        ("os.fork() or (die_with_parent(), signal.pause())", False),
        ("os.pipe()", False),
        ("os.close(0)", False),
        ("os.dup2(os.open('/dev/null', 0), mine[-1] + 1)", False),
    ],
)
def test_a_process_knows_what_a_run_left_in_it(left: str, nothing: bool) -> None:
    program = f"""
import os, signal
from neuro.engines.sandbox.kernel import die_with_parent
from neuro.engines.sandbox.waiting import has_nothing_left, open_descriptors
mine = sorted(open_descriptors())
{left}
print(has_nothing_left(set(mine)))
"""
    told = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert told == f"{nothing}\n"


async def test_many_volumes_are_more_than_one_message(runs: Runs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("here")
    mounts = [
        mounted(source=str(source), target=f"/volume/{number}", read_only=True)
        for number in range(230)
    ]

    done = await runs.shell("cat /volume/*/file", volumes=tuple(mounts))

    assert done.output == b"here" * 230


async def test_what_a_run_does_to_its_devices_is_not_done_to_the_machines(runs: Runs) -> None:
    done = await runs.shell("chmod 600 /dev/null && echo mine > /dev/mine && stat -c %a /dev/null")
    after = await runs.shell("stat -c %a /dev/null; cat /dev/mine")

    assert "not permitted" in done.lines[0]  # they are the machine's own
    assert after.lines[0] == "666"
    assert "No such file" in after.lines[1]
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == 0o666
