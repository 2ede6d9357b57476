"""CPU, memory and process limits hold; a GPU job sees exactly its GPUs."""

from __future__ import annotations

import asyncio
import os

import pytest

from neuro.engines.base import ExitCause, Measures, RunNotFound
from tests.engines.harness import MIB, PATIENCE, EngineKind, Has, Runs, needs

BUSY = "import time\nend = time.time() + 600\nprint('ready', flush=True)\nwhile True: pass"


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_a_run_within_its_memory_is_left_alone(runs: Runs) -> None:
    done = await runs.run("python3", "-c", "x = bytearray(b'x') * (64 << 20)", memory=256 * MIB)

    assert done.code == 0


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_what_children_use_together_counts(runs: Runs) -> None:
    grow = "x = []\nimport time\nwhile True: x.append(bytearray(b'x') * (8 << 20)); time.sleep(.1)"
    script = f'python3 -c "{grow}" & python3 -c "{grow}" & wait'

    done = await runs.shell(script, memory=96 * MIB)

    # The kernel may kill one child first, so the code is the shell's own; the cause is not.
    assert done.exited.cause == ExitCause.OUT_OF_MEMORY or done.code == 0


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_a_fork_bomb_does_not_take_the_machine(runs: Runs) -> None:
    script = (
        "import os, time\nmade = 0\n"
        "try:\n"
        "    while made < 40000:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError as error: print('refused', made)\n"
    )

    done = await runs.run("python3", "-c", script, memory=4096 * MIB, patience=100)

    assert done.output.startswith(b"refused")
    assert int(done.output.split()[1]) < 40000


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_a_core_limit_holds(runs: Runs) -> None:
    script = (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0: break\n"
        "end = time.time() + 1.2\nwhile time.time() < end: pass\n"
        "print(sum(os.times()[:2]) / 1.2, flush=True)"
    )

    done = await runs.run("python3", "-c", script + "\nos._exit(0)", cpu=1.0)

    assert sum(map(float, done.lines)) < 1.35


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_shared_memory_is_small_unless_asked_for(runs: Runs) -> None:
    script = "df -m /dev/shm | tail -1 | awk '{print $2}'"

    small = await runs.shell(script, shm=False)
    large = await runs.shell(script, shm=True, memory=512 * MIB)

    assert int(small.output) <= 64
    assert int(large.output) >= 256


@needs(Has.PROGRAMS, Has.FENCE)
async def test_a_run_without_gpus_sees_none(runs: Runs) -> None:
    done = await runs.shell("ls /dev | grep nvidia; true")

    assert done.output == b""


@pytest.mark.root
@needs(Has.PROGRAMS, Has.LIMITS)
async def test_the_exit_says_how_much_memory_the_run_had_at_its_peak(runs: Runs) -> None:
    most = "x = bytearray(b'x') * (64 << 20); del x; import time; time.sleep(0.1)"

    done = await runs.run("python3", "-c", most, memory=256 * MIB)

    assert done.exited.peak_memory is not None
    assert 60 * MIB <= done.exited.peak_memory <= 256 * MIB


@needs(Has.PROGRAMS, Measures)
async def test_usage_tells_memory_and_cpu(runs: Runs) -> None:
    ref = await runs.start("python3", "-c", "x = bytearray(b'x') * (64 << 20)\n" + BUSY)
    await runs.says(ref.job_id, b"ready")

    await runs.engine.usage(ref.job_id)
    async with asyncio.timeout(PATIENCE):
        # A busy machine gives it its share later.
        while True:
            # The usage is a rate since the call before: of a few milliseconds it says nothing.
            await asyncio.sleep(0.5)
            usage = await runs.engine.usage(ref.job_id)
            assert usage.cpu < 1.5
            if usage.cpu > 0.2:
                break

    assert usage.memory > 60 * MIB


@needs(Measures)
async def test_the_usage_of_what_does_not_run_is_not_found(runs: Runs) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await runs.engine.usage(job_id)


async def test_the_capacity_is_the_machines(runs: Runs, kind: EngineKind) -> None:
    (whole,) = await runs.engine.nodes()

    assert whole.memory > 256 * MIB
    if kind.name == "sandbox":
        assert whole.cpu == len(os.sched_getaffinity(0))
