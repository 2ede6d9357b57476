"""One measurement of the engine alone, in whichever checkout is the working directory; JSON.

It calls only what every version of the engine has, so that versions can be measured in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from neuro.engines.base import RunRef
from neuro.engines.sandbox import SandboxEngine
from tests.engines.harness import Runs, spec

_FIRST, _MANY, _AT_ONCE, _SLEEPERS = 20, 200, 8, 20


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
    engine = SandboxEngine(folder / "engine")
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    try:
        for _ in range(5):
            await _first_byte(engine)
        first = statistics.median([await _first_byte(engine) for _ in range(_FIRST)])
        many = await _throughput(runs)
        memory = await _memory(runs, folder)
    finally:
        await runs.stop_all()
        await runs.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"first": first, "many": many, "memory": memory}))


async def _first_byte(engine: SandboxEngine) -> float:
    run = spec("echo", "hello")
    began = time.perf_counter()
    await engine.start(run)
    async with contextlib.aclosing(engine.logs(run.job_id)) as log:
        async for _ in log:
            break
    return time.perf_counter() - began


async def _throughput(runs: Runs) -> float:
    """Seconds for each of many runs of ``true``."""
    in_flight = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with in_flight:
            run = spec("true")
            await runs.engine.start(run)
            await runs.exited(RunRef(run.job_id, 0))

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(_MANY)))
    return (time.perf_counter() - began) / _MANY


async def _memory(runs: Runs, folder: Path) -> float:
    """Proportional bytes of everything but the command, for one sleeping run."""
    before = _processes()
    for _ in range(_SLEEPERS):
        await runs.start("sleep", "600")
    total = 0
    for folder, name in _processes() - before:
        with contextlib.suppress(OSError):
            if name in ("neuro-job", "neuro-init", "bwrap"):
                text = (folder / "smaps_rollup").read_text()
                found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
    return total / _SLEEPERS


def _processes() -> set[tuple[Path, str]]:
    """With their names: a process that waited for a run has another one now."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add((folder, (folder / "comm").read_text().strip()))
    return found


asyncio.run(main())
