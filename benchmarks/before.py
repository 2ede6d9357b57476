"""The engine and the platform beside those of another checkout: BENCH_BEFORE names its folder.

Both are measured in turn, and the figures are medians of the ratios of pairs.

git worktree add ../before COMMIT && make -C ../before setup
BENCH_BEFORE=../before make bench BENCH=before
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Result, ms
from benchmarks.pipelines import UnknownPeer

# What is measured, its name, its budget, and how its figure is shown.
Row = tuple[str, str, str, Callable[[float], str]]
PAIRS = 7
HERE = Path(__file__).parents[1]
PROGRAMS = HERE / "benchmarks" / "programs"


def run() -> Iterator[Result]:
    """All of it; nothing where no other checkout is named and all benchmarks are run."""
    named = os.environ.get("BENCH_BEFORE")
    if named is None:
        if "before" in sys.argv[1:]:
            raise UnknownPeer("name another checkout with a .venv: BENCH_BEFORE=../before")
        return
    other = Path(named).resolve()
    if not (other / ".venv" / "bin" / "python").exists():
        raise UnknownPeer(f"{other} has no .venv: run `make -C {other} setup`")
    for program, rows in (("runs.py", RUNS), ("whole.py", WHOLE)):
        pairs = [(_measure(HERE, program), _measure(other, program)) for _ in range(PAIRS)]
        for key, what, budget, show in rows:
            now = statistics.median(pair[0][key] for pair in pairs)
            then = statistics.median(pair[1][key] for pair in pairs)
            ratio = statistics.median(pair[0][key] / pair[1][key] for pair in pairs)
            note = f"{show(now)}, before {show(then)}"
            yield Result(what, f"{ratio:.2f} of before", budget, note)


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


RUNS: tuple[Row, ...] = (
    ("first", "start of a run → first byte of its output", "≤ 1.0 of before", ms),
    ("many", "200 × true, 8 in flight, each", "≤ 0.9 of before", ms),
    ("memory", "a sleeping run (PSS, without its command)", "≤ 1.05 of before", _megabytes),
)
WHOLE: tuple[Row, ...] = (
    ("submission", "submissions, 8 clients, each", "≤ 1.0 of before", ms),
    ("submission_cpu", "submissions, 8 clients: the server's CPU, each", "≤ 1.0 of before", ms),
    ("first", "POST of a job → first byte of its output", "≤ 1.0 of before", ms),
    ("true", "200 × true through the server, 8 in flight, each", "≤ 1.0 of before", ms),
    ("memory", "the server's memory", "≤ 1.0 of before", _megabytes),
    ("flat", "a bake of 200 × true, flat, a task", "≤ 0.7 of before", ms),
    ("chain", "a bake of 200 × true, in a chain, a task", "≤ 0.7 of before", ms),
)


def _measure(checkout: Path, program: str) -> dict[str, float]:
    done = subprocess.run(
        [checkout / ".venv" / "bin" / "python", PROGRAMS / program],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
