"""Runs at random, thousands of them: none may change anything of the host, or read the canary.

NEURO_FUZZ_CASES is how many (500 without it), NEURO_FUZZ_SEED the first one's seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import pytest

from neuro.engines.base import ExitCause, RunNotFound, RunRef
from tests.engines.harness import EVERYWHERE, Runs, drain
from tests.security.fuzz import Case, case
from tests.security.host import Host

_CASES = int(os.environ.get("NEURO_FUZZ_CASES", "500"))
_FIRST = int(os.environ.get("NEURO_FUZZ_SEED", "1"))
_AT_ONCE = 8
_PATIENCE = 60.0  # seconds; other workers may have jobs that leave no processor to these
_CHECKED = 25  # cases between two looks at the host


@pytest.mark.slow
@pytest.mark.timeout(120 + _CASES)
@pytest.mark.asyncio(loop_scope="module")
async def test_no_run_at_random_leaves_the_fence(runs: Runs, host: Host) -> None:
    seeds = iter(range(_FIRST, _FIRST + _CASES))
    ends: dict[ExitCause, int] = {}

    async def worker() -> None:
        for seed in seeds:
            tried = case(host, seed)
            cause = await attempt(runs, host, tried)
            ends[cause] = ends.get(cause, 0) + 1
            if seed % _CHECKED == 0:
                host.check()

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))

    host.check()
    assert sum(ends.values()) == _CASES
    # Neither may all be refused, nor none: then nothing was tried.
    assert ends.get(ExitCause.CANNOT_START, 0) > _CASES / 10, ends
    assert ends.get(ExitCause.COMPLETED, 0) > _CASES / 10, ends


async def attempt(runs: Runs, host: Host, tried: Case) -> ExitCause:
    ref = RunRef(tried.spec.job_id)
    await runs.engine.start(tried.spec)
    if tried.command_inside:
        with contextlib.suppress(RunNotFound):
            session = await runs.engine.exec(ref.job_id, tried.command_inside, tty=False)
            out, err = await drain(session)
            await session.close()
            host.check_output(out + err, f"seed {tried.seed}, exec")
    done = await runs.finished(ref, _PATIENCE)
    host.check_output(done.output, f"seed {tried.seed}")
    assert done.exited.cause != ExitCause.LOST, f"seed {tried.seed}: {done.exited.message}"
    if done.exited.cause == ExitCause.CANNOT_START:
        assert done.exited.message, f"seed {tried.seed}"
    await runs.engine.remove(ref.job_id)
    for mount in tried.spec.volumes:
        shutil.rmtree(volume_of(host, EVERYWHERE.path_of(mount.source)), ignore_errors=True)
    runs.told = [event for event in runs.told if event.ref != ref]
    return done.exited.cause


def volume_of(host: Host, source: str) -> Path:
    storage = host.place / "storage"
    return storage / Path(source).relative_to(storage).parts[0]
