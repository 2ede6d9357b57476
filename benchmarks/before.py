"""Runs of the engine beside those of another checkout, in turn: BENCH_BEFORE names its folder.

git worktree add ../before COMMIT && make -C ../before setup
BENCH_BEFORE=../before make bench BENCH=before
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Result, ms
from benchmarks.pipelines import UnknownPeer

PAIRS = 7
HERE = Path(__file__).parents[1]
PROGRAM = HERE / "benchmarks" / "programs" / "runs.py"


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
    pairs = [(_measure(HERE), _measure(other)) for _ in range(PAIRS)]
    for key, what, budget, show in (
        ("first", "start of a run → first byte of its output", "≤ 1.0 of before", ms),
        ("many", "200 × true, 8 in flight, each", "≤ 0.9 of before", ms),
        ("memory", "a sleeping run (PSS, without its command)", "≤ 1.05 of before", _megabytes),
    ):
        now = statistics.median(pair[0][key] for pair in pairs)
        then = statistics.median(pair[1][key] for pair in pairs)
        ratio = statistics.median(pair[0][key] / pair[1][key] for pair in pairs)
        note = f"{show(now)}, before {show(then)}"
        yield Result(what, f"{ratio:.2f} of before", budget, note)


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def _measure(checkout: Path) -> dict[str, float]:
    done = subprocess.run(
        [checkout / ".venv" / "bin" / "python", PROGRAM],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
