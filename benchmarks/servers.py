"""Submissions through several servers on one PostgreSQL, beside one of them alone."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from benchmarks.harness import SETTINGS, Result
from benchmarks.queue import HOLD, HOLDERS, JOB, LIMITS, empty_queue
from tests.postgres import PostgresServer
from tests.server_process import ServerProcess, end_jobs

SERVERS = 3
CLIENTS = 24
EACH = 50
PAIRS = 7


def run() -> Iterator[Result]:
    """All of it."""
    with PostgresServer() as postgres, postgres.database() as url:
        folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
        every = [_server(folder, number, url) for number in range(SERVERS)]
        up: list[ServerProcess] = []
        try:
            for server in every:
                if up:
                    _give_key(up[0], server)
                server.start()
                up.append(server)
            yield from asyncio.run(_compare(up))
        finally:
            _end(up, url)
            shutil.rmtree(folder, ignore_errors=True)


def _server(folder: Path, number: int, database: str) -> ServerProcess:
    """The first has no name; all share a storage."""
    name = f'[server]\nname = "s{number}"\n' if number else ""
    storage = f'[storage]\nfolder = "{folder / "storage"}"\n'
    settings = f"{SETTINGS}{LIMITS}\n{name}{storage}"
    return ServerProcess(folder / f"server-{number}", settings=settings, database=database)


def _give_key(one: ServerProcess, other: ServerProcess) -> None:
    """Tokens of one server are those of all."""
    keys = other.data_dir / "keys"
    keys.mkdir(mode=0o700, parents=True)
    shutil.copy(one.data_dir / "keys" / "tokens.key", keys)


def _end(servers: Sequence[ServerProcess], url: str) -> None:
    """End the jobs that hold the machine, and let none of the queue follow them."""
    for server in servers:
        if server.is_running():
            server.stop()
    empty_queue(url)
    for server in servers:
        server.start()
    end_jobs(servers[0].url, servers[0].token)
    for server in servers:
        server.stop()


async def _compare(servers: Sequence[ServerProcess]) -> list[Result]:
    async with AsyncExitStack() as stack:
        doors = []
        for server in servers:
            headers = {"Authorization": f"Bearer {server.token}"}
            http = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))
            doors.append((await stack.enter_async_context(http), server.url))
            for _ in range(HOLDERS):
                assert await _submit(*doors[-1], HOLD)
        await _flood(doors)
        pairs, errors = [], 0
        for _ in range(PAIRS):
            one, bad = await _flood(doors[:1])
            all_of_them, worse = await _flood(doors) if len(doors) > 1 else (one, 0)
            pairs.append((one, all_of_them))
            errors += bad + worse
    alone = statistics.median(pair[0] for pair in pairs)
    results = [
        Result(
            f"submissions through one server on PostgreSQL, {CLIENTS} clients",
            f"{alone:.0f}/s",
            "no error",
            f"{errors} errors",
        )
    ]
    if len(doors) > 1:
        together = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        results.append(
            Result(
                f"submissions through {len(doors)} servers on one PostgreSQL, {CLIENTS} clients",
                f"{ratio:.2f} of one server",
                "≥ 1.0 of one server, no error",
                f"{together:.0f}/s, {errors} errors",
            )
        )
    return results


async def _flood(doors: Sequence[tuple[aiohttp.ClientSession, str]]) -> tuple[float, int]:
    """(Submissions a second, errors) of as many clients, spread over the servers."""
    bad = 0

    async def client(number: int) -> None:
        nonlocal bad
        http, url = doors[number % len(doors)]
        for _ in range(EACH):
            bad += not await _submit(http, url, JOB)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return CLIENTS * EACH / (time.perf_counter() - began), bad


async def _submit(http: aiohttp.ClientSession, url: str, job: dict[str, str]) -> bool:
    async with http.post(url + "/jobs?from_preset", json=job) as response:
        await response.read()
        return response.status == 202
