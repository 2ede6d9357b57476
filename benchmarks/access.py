"""What a permission check costs with a million grants of ten thousand people."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, insert, text

from benchmarks.harness import Result
from neuro.domain.jobs import JobFilter
from neuro.domain.permissions import Action, owner_permissions
from neuro.domain.uris import ResourceURI
from neuro.server.access import grant_tables
from neuro.server.access.grant_book import GrantBook
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.jobs import tables as job_tables

PEOPLE = 10_000
GRANTS = 1_000_000
JOBS = 100_000
BATCH = 20_000
LOOKS = 400
CHECKS = 20_000
PAGE = 500


def run() -> Iterator[Result]:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
        database = Database(sqlite_url(Path(folder) / "grants.sqlite3"))
        migrate(database)
        started = time.perf_counter()
        database.write_now(_fill)
        filled = time.perf_counter() - started
        yield from asyncio.run(_measure(database, f"{filled:.0f} s to fill the database"))
        database.close()


def _name(number: int) -> str:
    return f"user-{number:05}"


def _job(number: int) -> str:
    return f"job-{number:08x}-0000-4000-8000-000000000000"


def _fill(connection: Connection) -> None:
    """Everybody has what is theirs, and a hundred shares in all: of files, jobs, and by roles."""
    draw, now = random.Random(1), datetime.now(UTC)
    people = [_name(number) for number in range(PEOPLE)]
    roles = [f"{name}/team" for name in people[:100]]
    rows = [{"name": it, "kind": "user", "owner": None, "created_at": now} for it in people]
    rows += [
        {"name": it, "kind": "role", "owner": it.partition("/")[0], "created_at": now}
        for it in roles
    ]
    connection.execute(insert(grant_tables.subjects), rows)
    batch: list[dict[str, object]] = []
    for number, name in enumerate(people):
        own = [(it.uri, it.action.value, None) for it in owner_permissions(name, "default")]
        given = {(draw.randrange(PEOPLE), draw.randrange(1000)) for _ in range(60)}
        shares = [
            (ResourceURI("storage", "default", (_name(of), "data", str(what))), "read", _name(of))
            for of, what in given
        ]
        jobs = {draw.randrange(JOBS) for _ in range(GRANTS // PEOPLE - len(own) - 61)}
        shares += [
            (ResourceURI("job", "default", (_name(it % PEOPLE), _job(it))), "write", _name(0))
            for it in jobs
        ]
        role = ResourceURI("role", f"{people[number % 100]}", ("team",))
        batch += [
            {
                "subject": name,
                "uri": str(uri),
                "action": action,
                "owner": grant_tables.owner_of(uri),
                "granted_by": by,
                "granted_at": now,
                "expires_at": None,
            }
            for uri, action, by in (*own, *shares, (role, "read", name))
        ]
        if len(batch) >= BATCH or number == PEOPLE - 1:
            connection.execute(insert(grant_tables.grants), batch)
            batch = []
    _fill_jobs(connection)


def _fill_jobs(connection: Connection) -> None:
    rows = [
        {"id": _job(number), "owner": _name(number % PEOPLE), "name": f"name-{number}"}
        for number in range(JOBS)
    ]
    connection.execute(
        text(
            "INSERT INTO jobs (id, owner, name, cluster, engine, status, priority, created_at, run,"
            " placed, run_started, logs_removed, log_bytes, specification, transitions) VALUES"
            " (:id, :owner, :name, 'default', 'sandbox', 'succeeded', 1, 0, 0, true, true, false,"
            " 0, x'7b7d', x'5b5d')"
        ),
        rows,
    )


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
    results += [_warm_token(book), await _list(database, grants), await _memory(database)]
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


async def _list(database: Database, grants: Grants) -> Result:
    visible = grants.scope("job", "default")

    def page(connection: Connection) -> int:
        found = connection.execute(
            job_tables.list_statement(visible, JobFilter(reverse=True), page=PAGE, after=None)
        )
        return len(found.all())

    times, found = [], 0
    for _ in range(30):
        started = time.perf_counter()
        found = await database.read(page)
        times.append(time.perf_counter() - started)
    return Result(
        f"a page of what is shared, of {JOBS:,} jobs",
        f"{statistics.median(times) * 1000:.1f} ms",
        "20 ms",
        f"{found} jobs by {len(visible.singles)} grants",
    )


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
