"""One measurement of the whole platform, in whichever checkout is the working directory; JSON.

It calls only what every version has, so that versions can be measured in turn. CPU is that of the
server and of all that it began: a busy machine changes it less than the clock. The arguments name
what is measured: submissions, jobs, bakes; all of it where there are none.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from neuro.client import Client
from neuro.domain.jobs import JobRequest
from tests.server_process import ServerProcess, running_server

# Its own, as those of the other checkout may be others: both servers are to have the same.
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
"""
CLIENTS, EACH = 8, 200
FIRST, MANY, AT_ONCE = 30, 200, 8
TASKS = 200
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    wanted = sys.argv[1:] or ["submissions", "jobs", "bakes"]
    measured: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
    try:
        for name in wanted:
            with running_server(folder / name, settings=SETTINGS) as server:
                measured |= {
                    "submissions": lambda server: asyncio.run(_submissions(server)),
                    "jobs": lambda server: asyncio.run(_jobs(server)),
                    "bakes": _bakes,
                }[name](server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(measured))


async def _submissions(server: ServerProcess) -> dict[str, float]:
    """Of jobs that wait, as the first two have the machine."""
    headers = {"Authorization": f"Bearer {server.token}"}
    job = {"image": "ubuntu:latest", "command": "sleep 10000", "preset_name": "large"}

    async def submit(http: aiohttp.ClientSession) -> None:
        async with http.post(server.url + "/jobs?from_preset", json=job) as response:
            assert response.status == 202, await response.text()
            await response.read()

    async def client(http: aiohttp.ClientSession) -> None:
        for _ in range(EACH):
            await submit(http)

    async with aiohttp.ClientSession(headers=headers) as http:
        for _ in range(100):
            await submit(http)
        used, began = _cpu_seconds(server.pid), time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
        took = (time.perf_counter() - began) / (CLIENTS * EACH)
        used = (_cpu_seconds(server.pid) - used) / (CLIENTS * EACH)
        # All of them would begin, one after the other, as soon as the first two are ended.
        async with http.get(server.url + "/jobs?status=pending") as response:
            for one in (await response.json())["jobs"]:
                async with http.delete(f"{server.url}/jobs/{one['id']}"):
                    pass
    return {"submission": took, "submission_cpu": used}


async def _jobs(server: ServerProcess) -> dict[str, float]:
    memory = _resident(server.pid)
    async with Client.connect(server.url, server.token) as client:

        async def submit(command: str) -> str:
            asked = JobRequest(image="ubuntu:latest", command=command, preset_name="bench")
            return (await client.jobs.submit(asked)).job.id

        async def first_byte() -> float:
            began = time.perf_counter()
            job = await submit("echo hello")
            async for _ in client.jobs.logs(job):
                break
            return time.perf_counter() - began

        limit = asyncio.Semaphore(AT_ONCE)

        async def to_the_end() -> None:
            async with limit:
                async for _ in client.jobs.logs(await submit("true")):
                    pass

        await asyncio.gather(*(to_the_end() for _ in range(AT_ONCE)))
        first = statistics.median([await first_byte() for _ in range(FIRST)])
        with _cpu_of_all(server) as used:
            began = time.perf_counter()
            await asyncio.gather(*(to_the_end() for _ in range(MANY)))
            took = (time.perf_counter() - began) / MANY
    return {
        "memory": memory,
        "memory_after": _resident(server.pid),
        "first": first,
        "true": took,
        "true_cpu": used[0] / MANY,
    }


def _bakes(server: ServerProcess) -> dict[str, float]:
    folder = server.data_dir.parent / "project"
    config = folder / "bench" / ".neuro"
    config.mkdir(parents=True)
    head = "kind: batch\ndefaults:\n  preset: bench\n  cache:\n    strategy: none\ntasks:\n"
    for shape, needs in (("flat", "  needs: []\n"), ("chain", "")):
        tasks = [f"- id: t{n}\n{needs}  image: ubuntu\n  cmd: 'true'\n" for n in range(TASKS)]
        (config / f"{shape}.yml").write_text(head + "".join(tasks))
    commands = Path(sys.executable).parent
    env = {**os.environ, "HOME": str(folder), "NEUROMATION_CONFIG": str(folder / ".neuro")}
    login = [commands / "neuro", "config", "login-with-token", server.token, server.url]
    subprocess.run(login, env=env, check=True, stdout=subprocess.DEVNULL)
    measured = {}
    for shape in ("flat", "chain"):
        with _cpu_of_all(server) as used:
            began = time.perf_counter()
            subprocess.run(
                [commands / "neuro-flow", "bake", shape],
                cwd=folder / "bench",
                env=env,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            measured[shape] = (time.perf_counter() - began) / TASKS
        measured[f"{shape}_cpu"] = used[0] / TASKS
    return measured


@contextmanager
def _cpu_of_all(server: ServerProcess) -> Iterator[list[float]]:
    """Seconds of CPU of the server, and of all processes that began and ended below it."""
    used: list[float] = []
    before = _family_seconds(server.pid)
    yield used
    time.sleep(0.5)  # Those that end now are counted when they are waited for.
    used.append(_family_seconds(server.pid) - before)


def _family_seconds(pid: int) -> float:
    total = _cpu_seconds(pid, with_children=True)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        total += _family_seconds(int(child))
    return total


def _cpu_seconds(pid: int, *, with_children: bool = False) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_children else 13])) / TICK


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) * 1024
    return 0.0


main()
