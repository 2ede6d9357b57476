"""A server with 100,000 jobs in its queue, on SQLite and on PostgreSQL, beside an empty one."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select

from benchmarks.harness import (
    SETTINGS,
    Result,
    cpu_seconds,
    mb,
    ms,
    resident,
    seconds,
)
from neuro.domain.resources import Amount
from neuro.engines.base import Node
from neuro.server.database.engine import Database
from neuro.server.jobs import tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord
from tests.postgres import PostgresServer
from tests.server_process import ServerProcess, end_jobs

MANY = 100_000
STARTS = 3
PAIRS = 500
LOOKS = 21
# The machine is full, so that whatever is submitted waits; nobody has a limit of their own.
LIMITS = "\n[limits]\nactive_jobs_per_owner = 150_000\n"
JOB = {"image": "ubuntu:latest", "command": "true", "preset_name": "large"}
HOLD = {**JOB, "command": "sleep 10000"}
HOLDERS = 2
# More of the CPU than there ever is, and no GPU: it waits, behind those that need one.
HUGE = Amount(cpu=2e9, memory=1 << 30)
_IN_QUEUE = tables.jobs.c.status == "pending"


def run() -> Iterator[Result]:
    """All of it."""
    yield from _on("SQLite", None, None)
    with PostgresServer() as postgres, postgres.database() as empty, postgres.database() as full:
        yield from _on("PostgreSQL", empty, full)


def _on(database: str, empty_url: str | None, full_url: str | None) -> Iterator[Result]:
    folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
    empty = ServerProcess(folder / "empty", settings=SETTINGS + LIMITS, database=empty_url)
    full = ServerProcess(folder / "full", settings=SETTINGS + LIMITS, database=full_url)
    try:
        for server in (empty, full):
            server.start()
            asyncio.run(_fill_the_machine(server))
        full.stop()
        _queue(full.database_url)
        yield from _starts(database, empty, full)
        yield from asyncio.run(_submissions(database, empty, full))
        full.stop()
        yield from _looks(database, full.database_url)
    finally:
        for server in (empty, full):
            _end(server)
        shutil.rmtree(folder, ignore_errors=True)


def _queue(url: str) -> None:
    """Straight into the database: the newest job again and again, each with its own command."""
    database = Database(url)

    def fill(connection: Connection) -> None:
        newest = select(tables.jobs).order_by(tables.jobs.c.sequence.desc()).limit(1)
        pattern = dict(connection.execute(newest).one()._mapping)
        del pattern["sequence"]
        specification: dict[str, Any] = json.loads(pattern.pop("specification"))
        for start in range(0, MANY, 1000):
            rows = []
            for number in range(start, start + 1000):
                specification["container"]["command"] = f"true {number}"
                one = {
                    "id": f"job-{number:08x}-0000-4000-8000-000000000000",
                    "specification": json.dumps(specification).encode(),
                }
                rows.append({**pattern, **one})
            connection.execute(insert(tables.jobs), rows)

    try:
        database.write_now(fill)
    finally:
        database.close()


def _end(server: ServerProcess) -> None:
    """End the jobs that hold the machine, and none in the queue's place."""
    if server.is_running():
        server.stop()
    empty_queue(server.database_url)
    server.start()
    end_jobs(server.url, server.token)
    server.stop()


def empty_queue(url: str) -> None:
    """Take all jobs that wait out of the database of a server that is down."""
    database = Database(url)
    try:
        database.write_now(lambda c: c.execute(delete(tables.jobs).where(_IN_QUEUE)))
    finally:
        database.close()


def _starts(database: str, empty: ServerProcess, full: ServerProcess) -> Iterator[Result]:
    times, used = [], []
    for _ in range(STARTS):
        times.append(seconds(full.start))
        used.append(cpu_seconds(full.pid))
        memory = resident(full.pid)
        full.stop()
    full.start()
    yield Result(
        f"{MANY:,} pending jobs on {database}: start of the server, median",
        f"{statistics.median(times):.1f} s",
        "≤ 5 s",
        f"{statistics.median(used):.1f} s of CPU",
    )
    each = (memory - resident(empty.pid)) / MANY
    yield Result(
        f"{MANY:,} pending jobs on {database}: server resident",
        mb(memory),
        "",
        f"{each / 1000:.1f} KB a job",
    )


def _session(server: ServerProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"})


async def _submit(http: aiohttp.ClientSession, url: str, job: dict[str, str]) -> None:
    async with http.post(url + "/jobs?from_preset", json=job) as response:
        if response.status != 202:
            raise RuntimeError(await response.text())
        await response.read()


async def _fill_the_machine(server: ServerProcess) -> None:
    async with _session(server) as http:
        for job in (*[HOLD] * HOLDERS, JOB):
            await _submit(http, server.url, job)
        await _until_running(http, server.url, HOLDERS)


async def _until_running(http: aiohttp.ClientSession, url: str, count: int) -> None:
    while True:
        async with http.get(url + "/server") as response:
            engines = (await response.json())["engines"]
        if engines[0]["running"] == count:
            return
        await asyncio.sleep(0.01)


async def _submissions(database: str, empty: ServerProcess, full: ServerProcess) -> list[Result]:
    async with _session(full) as to_full, _session(empty) as to_empty:
        submit, state = [], []
        for number in range(PAIRS + 20):
            pair = []
            for http, url in ((to_full, full.url), (to_empty, empty.url)):
                started = time.perf_counter()
                await _submit(http, url, JOB)
                pair.append(time.perf_counter() - started)
            if number >= 20:
                submit.append(pair)
        for _ in range(20):
            started = time.perf_counter()
            async with to_full.get(full.url + "/server") as response:
                await response.read()
            state.append(time.perf_counter() - started)
    many, none = (statistics.median(times) for times in zip(*submit, strict=True))
    return [
        Result(
            f"{MANY:,} pending jobs on {database}: submit one more",
            f"{statistics.median(pair[0] / pair[1] for pair in submit):.2f} of an empty server",
            "≤ 1.5 of an empty server",
            f"{ms(many)}, {ms(none)}",
        ),
        Result(f"{MANY:,} pending jobs on {database}: GET /server", ms(statistics.median(state))),
    ]


def _looks(database: str, url: str) -> Iterator[Result]:
    """In process: the board of the same records, and looks at its queue in three situations."""
    records = _records(url)
    # All of the machine is taken: what nearly every look finds.
    full = _board(Node(name="machine", cpu=0, memory=0), records)
    # There is more than enough of all but GPUs, and each job needs one.
    enough = Node(name="machine", cpu=1e9, memory=1 << 60, gpus=("0",))
    need_gpus = [_with_gpu(record) for record in records]
    waiting = _board(enough, need_gpus)
    # All have to be looked at, as the last may start: no look can be longer.
    other = replace(records[-1], specification=replace(records[-1].specification, amount=HUGE))
    worst = _board(enough, [*need_gpus[:-1], other])
    for board in (waiting, worst):
        board.choose("sandbox")  # the first job takes the only one
    for what, board in (
        ("the machine is full", full),
        ("all wait for a GPU", waiting),
        ("all wait for a GPU but the last, which is looked for", worst),
    ):
        times = [seconds(lambda: board.choose("sandbox")) for _ in range(LOOKS)]  # noqa: B023
        yield Result(
            f"{MANY:,} pending jobs on {database}: a look of the scheduler, {what}",
            ms(statistics.median(times)),
            "≤ 50 ms",
            f"the longest: {ms(max(times))}",
        )
    times = [seconds(lambda: worst.waits_for(other)) for _ in range(LOOKS)]
    yield Result(
        f"{MANY:,} pending jobs on {database}: what the last one waits for",
        ms(statistics.median(times)),
    )


def _records(url: str) -> list[JobRecord]:
    database = Database(url)
    try:
        active = database.write_now(tables.active_jobs)
    finally:
        database.close()
    return [record for record in active if not record.placed]


def _board(node: Node, records: list[JobRecord]) -> Board:
    board = Board({"sandbox": [node]})
    for record in records:
        board.add(record)
    return board


def _with_gpu(record: JobRecord) -> JobRecord:
    amount = Amount(cpu=0.01, memory=16 << 20, gpu=1)
    return replace(record, specification=replace(record.specification, amount=amount))
