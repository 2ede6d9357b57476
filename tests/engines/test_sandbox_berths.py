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

from neuro.engines.base import File
from tests.engines.harness import EngineKind, Runs, eventually, gone, mounted
from tests.engines.test_sandbox_engine import processes


def waiting(folder: Path) -> list[int]:
    """The supervisors of berths."""
    return processes("neuro-berth", folder)


async def test_nothing_waits_before_the_first_run(own_runs: Runs, folder: Path) -> None:
    assert waiting(folder) == []

    await own_runs.run("true")

    await eventually(lambda: bool(waiting(folder)), "no berth is made")


async def test_those_of_a_killed_zygote_go_with_it(
    own_runs: Runs, folder: Path, kind: EngineKind
) -> None:
    done = await own_runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 2, "berths are not made")
    old = waiting(folder)
    (zygote,) = processes("neuro-zygote", folder)

    os.kill(zygote, signal.SIGKILL)

    await eventually(lambda: not set(old) & set(waiting(folder)), "berths stay")
    await own_runs.engine.remove(done.ref.job_id)
    await gone(lambda: kind.traces(folder))


async def test_a_run_begins_where_what_waited_was_killed(own_runs: Runs, folder: Path) -> None:
    await own_runs.run("true")
    await eventually(lambda: len(waiting(folder)) == 2, "berths are not made")

    killed = [os.pidfd_open(pid) for pid in waiting(folder)]
    for fd in killed:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    for fd in killed:
        await eventually(lambda fd=fd: select.select([fd], [], [], 0)[0], "they are not gone")
        os.close(fd)
    done = await own_runs.run("echo", "hello")

    assert (done.code, done.output) == (0, b"hello\n")


async def test_a_supervisor_looks_after_one_run_after_the_other(
    own_runs: Runs, folder: Path, kind: EngineKind
) -> None:
    seen: list[int] = []

    while len(seen) == len(set(seen)):
        done = await own_runs.run("true")
        seen.append(kind.supervisor_of(folder, done.ref))
        assert len(seen) < 20, "each run had a supervisor of its own"

    await eventually(lambda: not processes("neuro-idle", folder), "they wait for ever")


async def test_no_run_waits_for_who_was_killed_before_it_made_a_berth(
    own_runs: Runs, folder: Path
) -> None:
    await own_runs.run("true")
    await eventually(lambda: bool(processes("neuro-idle", folder)), "nobody comes back")
    (idle,) = (os.pidfd_open(pid) for pid in processes("neuro-idle", folder))
    signal.pidfd_send_signal(idle, signal.SIGSTOP)
    await own_runs.run("true")  # whose place it is asked to take

    signal.pidfd_send_signal(idle, signal.SIGKILL)
    await eventually(lambda: bool(select.select([idle], [], [], 0)[0]), "it is not gone")
    os.close(idle)

    for _ in range(3):
        assert (await own_runs.run("true")).code == 0


LOOK = """
cd /proc/self; umask; ulimit -a; pwd; tty; env | sort | grep -v ^HOSTNAME
for pid in self 1; do
  grep -E "^(Sig[^Q]|Shd|Cap|Uid|Gid|Groups|NoNewPrivs|Seccomp)" /proc/$pid/status
done
ls fd; wc -l < mountinfo
ls -A /tmp /root /dev/shm /run; ipcs -a 2>/dev/null | grep -c 0x; ps 2>/dev/null | wc -l
"""


async def test_a_run_finds_what_the_first_run_of_all_found(
    own_runs: Runs, folder: Path, kind: EngineKind
) -> None:
    left: set[int] = set()
    leave = "trap '' TERM; umask 077; echo secret | tee /tmp/left /root/left /dev/shm/left; cat /s"
    secret = File(target="/s", content=b"secret")

    first = await own_runs.shell(LOOK)
    for _ in range(20):
        done = await own_runs.shell(leave, env={"SECRET": "secret"}, files=(secret,), tty=True)
        left.add(kind.supervisor_of(folder, done.ref))
        for _ in range(2):  # of two that take turns, each gets every second run
            later = await own_runs.shell(LOOK)
            assert later.output == first.output
            if kind.supervisor_of(folder, later.ref) in left:
                return

    pytest.fail("each run had a supervisor of its own")


@pytest.mark.parametrize(
    ("left", "nothing"),
    [
        ("pass", True),
        ("os.fork() or os._exit(0); os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)", True),
        ("os.fork() or (die_with_parent(), signal.pause())", False),
        ("os.pipe()", False),
        ("os.close(0)", False),
        ("os.dup2(os.open('/dev/null', 0), max(mine.files) + 1)", False),
        ("os.dup2(os.open('/proc/self/status', 0), max(mine.files))", False),
        ("unshare(CLONE_NEWUSER)", False),
        ("unshare(CLONE_NEWUSER | CLONE_NEWPID)", False),
    ],
)
def test_a_process_knows_what_a_run_left_in_it(left: str, nothing: bool) -> None:
    program = f"""
import os, signal
from neuro.engines.sandbox.kernel import CLONE_NEWPID, CLONE_NEWUSER, die_with_parent, unshare
from neuro.engines.sandbox.waiting import has_nothing_left, holdings
mine = holdings()
{left}
print(has_nothing_left(mine))
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
