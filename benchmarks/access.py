"""What a permission check costs with a million grants of ten thousand people."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.harness import Result
from neuro.domain.jobs import JobFilter
from neuro.domain.permissions import Action, Permission, owner_permissions
from neuro.domain.uris import ResourceURI
from neuro.server.access.grant_book import GrantBook
from neuro.server.access.grants import Grants, Visibility
from neuro.server.access.identity import Identity
from neuro.server.access.sharing import MAX_GRANTS
from neuro.server.database.engine import Database, keep_open, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.jobs import listing
from tests.postgres import PostgresServer, find_binaries

PEOPLE = 10_000
GRANTS = 1_000_000
JOBS = 100_000
LOOKS = 400
CHECKS = 20_000
PAGE = 500
COLLECTOR = "collector"  # who was given as much as anybody can be


def run() -> Iterator[Result]:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
        yield from _of(sqlite_url(Path(folder) / "grants.sqlite3"), "SQLite")
    if find_binaries() is None:
        return
    with PostgresServer() as server, server.database() as url:
        yield from _of(url, "PostgreSQL")


def _of(url: str, name: str) -> Iterator[Result]:
    database = Database(url)
    migrate(database)
    started = time.perf_counter()
    database.write_now(_fill)
    if not database.is_sqlite:  # which does so by itself, later
        database.write_now(lambda connection: connection.execute(text("ANALYZE")))
    filled = time.perf_counter() - started
    for result in asyncio.run(_measure(database, f"{filled:.0f} s to fill the database")):
        yield replace(result, what=f"{name}: {result.what}")
    database.close()


def _name(number: int) -> str:
    return f"user-{number:05}"


def _job(number: int) -> str:
    return f"job-{number:08x}-0000-4000-8000-000000000000"


def _fill(connection: Connection) -> None:
    """Everybody has what is theirs, and a hundred shares in all: of files, jobs, and by roles."""
    keep_open(connection)  # Rows are made between the statements, for longer than others may take.
    draw, now = random.Random(1), datetime.now(UTC)
    people = [_name(number) for number in range(PEOPLE)]
    roles = [f"{name}/team" for name in people[:100]]
    at = int(now.timestamp() * 1_000_000)
    subjects = [(it, "user", None, at) for it in (*people, COLLECTOR)]
    subjects += [(it, "role", it.partition("/")[0], at) for it in roles]
    _load(connection, "subjects", ("name", "kind", "owner", "created_at"), subjects)
    rows: list[tuple[object, ...]] = []
    for number, name in enumerate(people):
        own = [(str(it.uri), it.action.value, name, None) for it in _own(name)]
        given = {(draw.randrange(PEOPLE), draw.randrange(1000)) for _ in range(60)}
        shares = [
            (f"storage://default/{_name(of)}/data/{what}", "read", _name(of), _name(of))
            for of, what in given
        ]
        jobs = {draw.randrange(JOBS) for _ in range(GRANTS // PEOPLE - len(own) - 61)}
        shares += [(_job_uri(it), "write", _name(it % PEOPLE), _name(0)) for it in jobs]
        role = (f"role://{people[number % 100]}/team", "read", people[number % 100], name)
        rows += [(name, *each, at) for each in (*own, *shares, role)]
    for number in range(0, JOBS, JOBS // MAX_GRANTS):
        owner = _name(number % PEOPLE)
        rows.append((COLLECTOR, _job_uri(number), "read", owner, owner, at))
    columns = ("subject", "uri", "action", "owner", "granted_by", "granted_at")
    _load(connection, "grants", columns, rows)
    _fill_jobs(connection)


def _own(name: str) -> list[Permission]:
    return owner_permissions(name, "default")


def _job_uri(number: int) -> str:
    return f"job://default/{_name(number % PEOPLE)}/{_job(number)}"


def _load(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> None:
    """Add many rows, as fast as each database can."""
    names = ", ".join(columns)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" for _ in columns)
        driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        return
    with driver.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _fill_jobs(connection: Connection) -> None:
    columns = {
        "cluster": "default",
        "engine": "sandbox",
        "status": "succeeded",
        "priority": 1,
        "created_at": 0,
        "run": 0,
        "placed": True,
        "run_started": True,
        "logs_removed": False,
        "log_bytes": 0,
        "specification": b"{}",
        "transitions": b"[]",
    }
    rows = [
        (_job(number), _name(number % PEOPLE), f"name-{number}", *columns.values())
        for number in range(JOBS)
    ]
    _load(connection, "jobs", ("id", "owner", "name", *columns), rows)


async def _measure(database: Database, filled: str) -> Iterator[Result]:
    count = await database.read(
        lambda it: it.execute(text("SELECT count(*) FROM grants")).scalar_one()
    )
    results = [Result("grants, people", f"{count:,}, {PEOPLE:,}", "1,000,000, 10,000", filled)]
    book = GrantBook(database, lambda: datetime.now(UTC))
    draw = random.Random(2)
    times = []
    began = time.process_time()
    for number in draw.sample(range(PEOPLE), LOOKS):
        started = time.perf_counter()
        await book.of(_name(number))
        times.append(time.perf_counter() - started)
    busy = (time.process_time() - began) / LOOKS
    times.sort()
    results.append(
        Result(
            "check, cold",
            f"{statistics.median(times) * 1000:.2f} ms",
            "2 ms",
            f"p95 {times[int(len(times) * 0.95)] * 1000:.2f} ms, of the CPU {busy * 1000:.2f} ms",
        )
    )
    grants = await book.of(_name(7))
    caller = Identity(_name(7), grants, "token")
    shared = next(it.grant.uri for it in grants.held if len(it.grant.uri.segments) == 3)
    yes, no = shared.child("a", "b", "c"), ResourceURI("storage", "default", ("user-0", "x", "y"))
    for what, uri in (("a yes", yes), ("a no", no)):
        each = _each(lambda uri=uri: caller.allows(uri, Action.READ))  # type: ignore[misc]
        results.append(Result(f"check, warm: {what}", f"{each * 1e6:.2f} µs", "10 µs"))
    results.append(_warm_token(book))
    results += await _list(database, grants, f"of {JOBS:,} jobs")
    results += await _list(database, await book.of(COLLECTOR), "of somebody with 10,000 grants")
    results += [await _memory(database)]
    return iter(results)


def _each(check: Callable[[], object]) -> float:
    """Seconds for one call, the best of several rounds: what else runs here is no part of it."""
    rounds = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(CHECKS):
            check()
        rounds.append((time.perf_counter() - started) / CHECKS)
    return min(rounds)


def _warm_token(book: GrantBook) -> Result:
    each = _each(lambda: book.known(_name(7)))
    return Result("what a caller holds, from memory", f"{each * 1e6:.2f} µs", "10 µs")


async def _list(database: Database, grants: Grants, whose: str) -> list[Result]:
    """The first page and the next, and whether they are what was shared and nothing else."""
    visible = grants.scope("job", "default")

    def page(after: int | None, connection: Connection) -> tuple[Sequence[Any], int | None]:
        return listing.list_rows(
            connection, visible, JobFilter(reverse=True), page=PAGE, after=after
        )

    results, after, found = [], None, set[str]()
    for which in ("a page", "the next page"):
        times = []
        for _ in range(30):
            started = time.perf_counter()
            rows, last = await database.read(partial(page, after))
            times.append(time.perf_counter() - started)
        found |= {row.id for row in rows}
        results.append(
            Result(
                f"{which} of what is shared, {whose}",
                f"{statistics.median(times) * 1000:.1f} ms",
                "20 ms",
                f"{len(rows)} jobs by {len(visible.singles):,} grants",
            )
        )
        if last is None:
            break
        after = last
    everything = {_job(number) for number in range(JOBS) if _is_shown(visible, number)}
    newest = sorted(everything, reverse=True)[: len(found)]
    assert found == set(newest), "the list is not exact"
    return results


def _is_shown(visible: Visibility, number: int) -> bool:
    return visible.shows(_name(number % PEOPLE), _job(number), f"name-{number}")


async def _memory(database: Database) -> Result:
    gc.collect()
    tracemalloc.start()
    book = GrantBook(database, lambda: datetime.now(UTC))
    for number in range(1000):
        (await book.of(_name(number))).action_on(ResourceURI("job", "default", ("x",)))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Result(
        "memory of what is known of 1,000 callers", f"{size / 1e6:.0f} MB", "60 MB", "bounded"
    )
