"""What all benchmarks share: a result, a server to measure, timing, the table."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.server_process import ServerProcess, running_server

# One core and little memory each, on a machine said to be large: many jobs run side by side, and
# no job is slowed down by its own CPU limit.
SETTINGS = """
stop_grace_seconds = 2
[capacity]
cpu = 2000
memory = "64G"
[[presets]]
name = "bench"
cpu = 1
memory = "32M"
[[presets]]
name = "large"
cpu = 1000
memory = "1G"
[[presets]]
name = "lean"
cpu = 2
memory = "300M"
"""


@dataclass(frozen=True)
class Result:
    """One line of the table. ``budget`` is what to reach, in words."""

    what: str
    figure: str
    budget: str = ""
    note: str = ""


@contextlib.contextmanager
def server(**options: object) -> Iterator[ServerProcess]:
    """A fresh server with a data folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
    try:
        with running_server(folder / "data", settings=SETTINGS, **options) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def neuro_command() -> list[str]:
    """The command line of this checkout, as people call it."""
    return [str(Path(sys.executable).with_name("neuro"))]


def logged_in(running: ServerProcess, folder: Path) -> dict[str, str]:
    """An environment in which ``neuro`` speaks to this server."""
    env = {**os.environ, "HOME": str(folder), "NEUROMATION_CONFIG": str(folder / ".neuro")}
    subprocess.run(
        [*neuro_command(), "config", "login-with-token", running.token, running.url],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return env


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def command_seconds(command: Sequence[str], env: dict[str, str], runs: int) -> list[float]:
    """Wall seconds of whole processes, after one that is not counted."""

    def once() -> None:
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)

    once()
    return [seconds(once) for _ in range(runs)]


def paired_seconds(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    runs: int,
    *,
    before: Callable[[], object] = lambda: None,
) -> tuple[float, float, float]:
    """(our median, their median, median of the ratios pair by pair), run in turn.

    ``before`` comes before each, and is not counted.
    """

    def timed(action: Callable[[], object]) -> float:
        before()
        return seconds(action)

    timed(ours)
    timed(theirs)
    pairs = [(timed(ours), timed(theirs)) for _ in range(runs)]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
    )


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


def proportional(pid: int) -> int:
    """Proportional set size of a process in bytes: shared pages are divided by their sharers."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ms(value: float) -> str:
    return f"{value * 1000:.1f} ms"


def mb(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = ["| what | measured | to reach | |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.figure} | {r.budget} | {r.note} |" for r in results]
    return "\n".join(lines)
