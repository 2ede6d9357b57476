"""The server: start, memory, submissions, lists."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from benchmarks.harness import SETTINGS, Result, mb, ms, resident, seconds, server
from tests.server_process import ServerProcess

JOB = {"image": "ubuntu:latest", "command": "true", "preset_name": "large"}
MANY = 100_000
GETS = 420
PROGRAMS = Path(__file__).parent / "programs"


def run() -> Iterator[Result]:
    """All of it."""
    yield from _start()
    with server() as running:
        yield from asyncio.run(_submissions(running))
    with server() as running:
        yield from asyncio.run(_lists(running))


def _start() -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
        running = ServerProcess(Path(folder) / "data", settings=SETTINGS)
        first = seconds(running.start)
        memory = resident(running.pid)
        running.stop()
        times = []
        for _ in range(5):
            times.append(seconds(running.start))
            running.stop()
    yield Result("server: start until ready", ms(statistics.median(times)), "≤ 1,000 ms",
                 f"the very first: {ms(first)}")  # fmt: skip
    yield Result("server: resident when idle", mb(memory), "≤ 90 MB")


def _session(running: ServerProcess) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {running.token}"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def _submit(http: aiohttp.ClientSession, url: str) -> int:
    async with http.post(url + "/jobs?from_preset", json=JOB) as response:
        await response.read()
        return response.status


async def _submissions(running: ServerProcess) -> list[Result]:
    # The first two jobs take the machine; the rest wait, so that only submitting is measured.
    async with _session(running) as http:
        hold = {**JOB, "command": "sleep 10000"}
        for _ in range(2):
            async with http.post(running.url + "/jobs?from_preset", json=hold) as response:
                assert response.status == 202
        for _ in range(100):
            await _submit(http, running.url)
        one = []
        for _ in range(500):
            started = time.perf_counter()
            await _submit(http, running.url)
            one.append(time.perf_counter() - started)
        rate8, bad8 = await _flood(http, running.url, clients=8, each=250)
        rate32, bad32 = await _flood(http, running.url, clients=32, each=100)
    return [
        Result("submission, one client, median", ms(statistics.median(one)), "≤ 5 ms"),
        Result("submissions, 8 clients", f"{rate8:.0f}/s", "≥ 500/s", f"{bad8} errors"),
        Result("submissions, 32 clients", f"{bad32} errors", "no error", f"{rate32:.0f}/s"),
    ]


async def _flood(
    http: aiohttp.ClientSession, url: str, *, clients: int, each: int
) -> tuple[float, int]:
    bad = 0

    async def client() -> None:
        nonlocal bad
        for _ in range(each):
            bad += await _submit(http, url) != 202

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.perf_counter() - started), bad


async def _lists(running: ServerProcess) -> list[Result]:
    async with _session(running) as http:
        for _ in range(100):
            assert await _submit(http, running.url) == 202
        await _until_over(http, running.url)
        hundred, bare, ratio = await _beside_a_bare_loop(http, running.url)
        _fill(running.data_dir / "neuro.db")
        newest = await _median_get(http, running.url + "/jobs?limit=50&reverse=1")
    return [
        Result(
            "GET of 100 jobs, one client, median",
            f"{ratio:.2f} of a bare loop of aiohttp, SQLite and msgspec",
            "≤ 3 of a bare loop",
            f"{ms(hundred)}, {ms(bare)}",
        ),
        Result(f"GET of the newest 50 of {MANY:,} jobs, median", ms(newest), "≤ 15 ms"),
    ]


async def _until_over(http: aiohttp.ClientSession, url: str) -> None:
    active = url + "/jobs?status=pending&status=running&limit=1"
    while True:
        _, found = await _get(http, active)
        if not found:
            return
        await asyncio.sleep(0.1)


async def _beside_a_bare_loop(http: aiohttp.ClientSession, url: str) -> tuple[float, float, float]:
    """(Our median, the other's, median of the ratios of pairs) for the same 100 jobs."""
    ours = url + "/jobs?limit=100"
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
        lines = Path(folder) / "lines"
        lines.write_bytes((await _get(http, ours))[1])
        command = [sys.executable, PROGRAMS / "bare_list.py", lines, folder]
        bare = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        try:
            assert bare.stdout is not None
            theirs = f"http://127.0.0.1:{int(await bare.stdout.readline())}/jobs?limit=100"
            pairs = []
            for _ in range(GETS):
                pair = [await _get(http, ours), await _get(http, theirs)]
                assert pair[0][1] == pair[1][1]
                pairs.append([took for took, _ in pair])
        finally:
            bare.terminate()
            await bare.wait()
    mine, other = (statistics.median(times) for times in zip(*pairs[20:], strict=True))
    return mine, other, statistics.median(pair[0] / pair[1] for pair in pairs[20:])


async def _get(http: aiohttp.ClientSession, url: str) -> tuple[float, bytes]:
    started = time.perf_counter()
    async with http.get(url, headers={"Accept": "application/x-ndjson"}) as response:
        body = await response.read()
    return time.perf_counter() - started, body


async def _median_get(http: aiohttp.ClientSession, url: str) -> float:
    return statistics.median([(await _get(http, url))[0] for _ in range(100)])


def _fill(path: Path) -> None:
    # Straight into the database: copies of a real finished job, with ids and numbers of their own.
    with sqlite3.connect(path, timeout=60) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(jobs)")]
        copied = [name for name in columns if name not in ("sequence", "id", "status", "name")]
        names = ", ".join(copied)
        database.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
            f" INSERT INTO jobs (id, status, {names})"
            f" SELECT printf('job-%08x-0000-4000-8000-000000000000', i), 'succeeded', {names}"
            " FROM n, (SELECT * FROM jobs ORDER BY sequence DESC LIMIT 1)"
        )
