"""Run the benchmarks named on the command line, or all; print and keep the table."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import Result, table
from benchmarks.pipelines import UnknownPeer

PARTS = (
    "cli",
    "flow",
    "api",
    "jobs",
    "queue",
    "servers",
    "bakes",
    "access",
    "files",
    "images",
    "registry",
    "builds",
    "containers",
    "install",
    "before",
)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """See the module."""
    wanted = sys.argv[1:] or PARTS
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are: {', '.join(PARTS)}\n")
        return 2
    results: list[Result] = []
    for part in wanted:
        try:
            for result in importlib.import_module(f"benchmarks.{part}").run():
                results.append(result)
                words = f"{result.what}: {result.figure}  ({result.budget}) {result.note}"
                print(words, flush=True)
        except UnknownPeer as error:
            sys.stderr.write(f"{error}\n")
            return 2
    now = datetime.now(UTC)
    machine = (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}.md"
    path.write_text(f"# {now:%Y-%m-%d}, {machine}\n\n{table(results)}\n")
    print(f"\n{table(results)}\n\nWritten to {path.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
