"""Jobs: how soon the first byte comes, how many a second, what sleeping ones cost, logs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import (
    Result,
    cpu_seconds,
    logged_in,
    mb,
    ms,
    neuro_command,
    proportional,
    resident,
    seconds,
    server,
)
from neuro.client import Client
from neuro.domain.jobs import Job, JobRequest
from tests.server_process import ServerProcess

SLEEPERS = 500
LOG_BYTES = 200_000_000


def run() -> Iterator[Result]:
    """All of it."""
    with server() as running:
        yield from asyncio.run(_first_byte(running))
        yield from asyncio.run(_chain(running))
        yield from asyncio.run(_throughput(running))
        yield from _logs(running)
    with server() as running:
        yield from asyncio.run(_sleepers(running))


async def _submit(client: Client, command: str) -> Job:
    request = JobRequest(image="ubuntu:latest", command=command, preset_name="bench")
    return (await client.jobs.submit(request)).job


async def _first_byte(running: ServerProcess) -> list[Result]:
    times = []
    async with Client.connect(running.url, running.token) as client:
        for turn in range(45):
            started = time.perf_counter()
            job = await _submit(client, "echo hello")
            async for _ in client.jobs.logs(job.id):
                if turn >= 5:
                    times.append(time.perf_counter() - started)
                break
    note = ""
    if shutil.which("docker") and _docker_works():
        docker = [
            seconds(lambda: subprocess.run(
                ["docker", "run", "--rm", "busybox", "echo", "hello"], check=True,
                stdout=subprocess.DEVNULL,
            ))
            for _ in range(10)
        ]  # fmt: skip
        note = f"docker run --rm: {ms(statistics.median(docker))}"
    figure = ms(statistics.median(times))
    return [Result("POST of a job → first byte of its output, median", figure, "≤ 60 ms", note)]


def _docker_works() -> bool:
    check = ["docker", "image", "inspect", "busybox"]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


async def _to_the_end(client: Client) -> None:
    job = await _submit(client, "true")
    async for _ in client.jobs.logs(
        job.id
    ):  # a log ends when the job's record says that it is over
        pass


async def _chain(running: ServerProcess) -> list[Result]:
    times = []
    async with Client.connect(running.url, running.token) as client:
        for turn in range(105):
            started = time.perf_counter()
            await _to_the_end(client)
            if turn >= 5:
                times.append(time.perf_counter() - started)
    figure = ms(statistics.median(times))
    return [Result("POST of `true` → its end, one after the other, median", figure, "≤ 20 ms")]


async def _throughput(running: ServerProcess) -> list[Result]:
    count, in_flight = 200, asyncio.Semaphore(8)
    async with Client.connect(running.url, running.token) as client:

        async def one() -> None:
            async with in_flight:
                await _to_the_end(client)

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        rate = count / (time.perf_counter() - started)
    return [Result("200 × true, 8 in flight", f"{rate:.0f} jobs/s", "≥ 40 jobs/s")]


def _logs(running: ServerProcess) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        env = logged_in(running, Path(folder))
        command = [*neuro_command(), "-q", "run", "--preset", "bench", "ubuntu", "--",
                   "head", "-c", str(LOG_BYTES), "/dev/zero"]  # fmt: skip
        rates, lost = [], 0
        for _ in range(3):
            started = time.perf_counter()
            count = 0
            with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                while chunk := process.stdout.read1(1 << 20):
                    count += chunk.count(0)
            rates.append(count / (time.perf_counter() - started))
            lost += LOG_BYTES - count
    note = f"from submission to the end; {lost} bytes lost"
    yield Result("one job printing 200 MB, followed by `neuro run`",
                 f"{statistics.median(rates) / 1e6:.0f} MB/s", "≥ 100 MB/s", note)  # fmt: skip


async def _sleepers(running: ServerProcess) -> list[Result]:
    before = _processes()
    async with Client.connect(running.url, running.token) as client:
        jobs = [await _submit(client, "sh -c 'echo up; sleep 10000'") for _ in range(SLEEPERS)]
        for job in jobs:
            async for _ in client.jobs.logs(job.id):
                break
        await asyncio.sleep(5)
        used = cpu_seconds(running.pid)
        await asyncio.sleep(20)
        busy = (cpu_seconds(running.pid) - used) / 20
        memory = resident(running.pid)
        supervision = sum(proportional(pid) for pid in _processes() - before if _ours(pid))
    return [
        Result(f"{SLEEPERS} × sleep: server resident", mb(memory), "≤ 300 MB"),
        Result(f"{SLEEPERS} × sleep: server's CPU", f"{busy:.2%} of a core", "≤ 3 %"),
        Result(f"{SLEEPERS} × sleep: supervision (PSS)",
               f"{supervision / SLEEPERS / 1e6:.2f} MB a job", "≤ 5 MB",
               "supervisor and first process"),
    ]  # fmt: skip


def _processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").glob("[0-9]*")}


def _ours(pid: int) -> bool:
    # Everything but the jobs' own programs.
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return not words[0].endswith((b"sh", b"sleep"))
    return False
