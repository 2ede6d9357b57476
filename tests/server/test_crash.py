"""``kill -9`` of the server at random moments: every job ends as it should, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job, JobFilter
from tests.server.jobs import output_of, submit
from tests.server_process import ServerProcess, running_server

KILLS = 20
JOBS = 50
LINES = 30


def _command(number: int) -> str:
    script = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; sleep 0.05; i=$((i+1)); done"
    return f"sh -c '{script}; exit {number % 5}'"


EXPECTED = "".join(f"line {number}\n" for number in range(LINES)).encode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_kill_loses_a_job_a_line_or_an_exit_code(server: ServerProcess) -> None:
    chance = random.Random(20260101)
    accepted: dict[str, int] = {}
    numbers = iter(range(JOBS))

    for round_ in range(KILLS):
        count = JOBS * (round_ + 1) // KILLS - JOBS * round_ // KILLS
        share = [next(numbers) for _ in range(count)]
        async with Client.connect(server.url, server.token) as client:
            calls = [asyncio.create_task(_submit(client, number)) for number in share]
            # The moment of the kill is the experiment: before, within or behind the submissions.
            await asyncio.sleep(chance.uniform(0, 0.2))
            server.kill()
            for number, job in zip(share, await asyncio.gather(*calls), strict=True):
                if job is not None:
                    accepted[job.id] = number
        server.start()

    async with Client.connect(server.url, server.token) as client:
        jobs = [job async for job in client.jobs.list(JobFilter())]
        assert accepted.keys() <= {job.id for job in jobs}
        for job in jobs:
            number = int((job.name or "").removeprefix("crash-"))
            assert await output_of(client, job) == EXPECTED, job.id
            job = await client.jobs.get(job.id)
            assert job.history.exit_code == number % 5, job
            assert job.status == ("succeeded" if number % 5 == 0 else "failed")
    assert len(accepted) > JOBS // 2
    server.stop()
    assert _left_behind(server.data_dir, [job.id for job in jobs]) == []
    async with asyncio.timeout(30):
        while _networks_of_nobody():
            await asyncio.sleep(0.05)  # The kernel takes networks down in its own time.


async def _submit(client: Client, number: int) -> Job | None:
    """The job, or None where the server died first (the job may exist all the same)."""
    try:
        return await submit(client, _command(number), name=f"crash-{number}")
    except (ServerUnreachable, PlatformError):
        return None


def _left_behind(data_dir: Path, job_ids: list[str]) -> list[str]:
    """Processes, mounts, cgroups and private folders of jobs that are over."""
    found = [f"mount {line}" for line in _lines("/proc/self/mountinfo") if str(data_dir) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if any(job_id.encode() in text for job_id in job_ids) or str(data_dir).encode() in text:
            found.append(f"process {process.name}")
    base = f"neuro-{_installation(data_dir)['id']}"
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{base}/*/")]
    found += [str(path) for path in (data_dir / "engines" / "sandbox" / "berths").glob("*")]
    for job_id in job_ids:
        job = data_dir / "engines" / "sandbox" / "jobs" / job_id
        found += [str(path) for path in job.glob("runs/*/*") if path.name in ("root", "layers")]
    return found


def _networks_of_nobody() -> bool:
    """Whether there are more networks of jobs, of any server here, than processes live in."""
    names = (line.split(":")[0].strip() for line in _lines("/proc/net/dev"))
    networks = [name for name in names if name.startswith("nj-")]
    inhabited = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            inhabited.add(os.readlink(process / "ns" / "net"))
    return len(networks) > len(inhabited - {os.readlink("/proc/self/ns/net")})


def _installation(data_dir: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((data_dir / "engines/sandbox/installation").read_text())
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
