"""Records at rest: damage, retention, paging, on both databases."""

from __future__ import annotations

import gc
import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import Damaged
from neuro.domain.jobs import Container, JobFilter, JobStatus, Priority, Reason, Resources
from neuro.domain.names import new_job_id
from neuro.domain.resources import GIB, Amount
from neuro.server.access.grants import Visibility
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.jobs import listing, lookups, tables
from neuro.server.jobs.phases import ENDING, Phase
from neuro.server.jobs.record import JobRecord, Specification
from neuro.server.jobs.retention import Keep, Retention
from tests.engines.memory import MemoryEngine
from tests.postgres import PostgresServer
from tests.server.fleet.servers import member
from tests.server.life import as_kept

EVERYBODYS = Visibility(everything=True)
LONG = timedelta(days=1000)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


def record(
    *,
    name: str | None = None,
    owner: str = "alice",
    age: timedelta = timedelta(),
    log_bytes: int = 0,
    over: bool = True,
) -> JobRecord:
    moment = datetime.now(UTC) - age
    resources = Resources(cpu=1, memory=GIB, memory_mb=1024, shm=False)
    made = JobRecord(
        id=new_job_id(),
        owner=owner,
        name=name,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=moment,
        log_bytes=log_bytes,
        specification=Specification(
            container=Container(image="ubuntu:latest", resources=resources),
            amount=Amount(cpu=1, memory=GIB),
            tags=["tests"],
        ),
    )
    made = made.stepped("Creating", moment)
    return made.ended(JobStatus.SUCCEEDED, "Completed", moment, exit_code=0) if over else made


def add(database: Database, *records: JobRecord) -> list[str]:
    for made in records:
        database.write_now(lambda connection, made=made: tables.insert_job(connection, made))
    return [made.id for made in records]


def test_the_runs_with_logs_are_those_that_may_have_begun(database: Database) -> None:
    waits, over = record(over=False), record()
    asked_for = replace(record(over=False), phase=Phase.STARTING)
    restarts = replace(record(over=False), phase=Phase.PAUSING, run=2)
    add(database, waits, over, asked_for, restarts)

    runs = database.write_now(lambda c: lookups.runs_with_logs(c, "sandbox"))

    assert sorted(runs) == sorted([(over.id, 0), (asked_for.id, 0), (restarts.id, 2)])


def test_the_collector_has_nothing_to_do_with_records_and_what_they_say(database: Database) -> None:
    """100,000 jobs that wait would take it a second, again and again."""
    job = record(over=False)
    add(database, job)

    (read,) = database.write_now(tables.active_jobs)

    said = read.specification
    parts = [read, said, said.amount, said.container, said.container.resources]
    assert not [part for part in (*parts, *read.transitions) if gc.is_tracked(part)]
    assert as_kept(replace(job, sequence=read.sequence)) == read


def listed(database: Database, **query: object) -> list[str]:
    with database.engine.connect() as connection:
        found, *_ = listing.list_jobs(
            connection,
            EVERYBODYS,
            JobFilter(**query),
            page=100,
            after=None,  # type: ignore[arg-type]
        )
    return [made.id for made in found]


def test_a_record_is_read_as_it_was_written(database: Database) -> None:
    made = record(name="same")

    add(database, made)

    with database.engine.connect() as connection:
        found = tables.get_job(connection, made.id)
    assert found is not None
    assert found == replace(made, sequence=found.sequence)


@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_the_next_server_reads_how_far_a_job_has_come(database: Database, phase: Phase) -> None:
    reason = Reason.USER_REQUESTED.value if phase in ENDING else None
    made = replace(record(over=False), phase=phase, stop_reason=reason, tries=3, stops=2)

    add(database, made)

    found = database.write_now(lambda c: tables.get_job(c, made.id))
    assert found is not None
    assert found == replace(as_kept(made), sequence=found.sequence)


DAMAGE = {
    "half a specification": ("specification", b'{"container":{"ima'),
    "no steps": ("transitions", b"[]"),
    "a status that its steps do not tell": ("status", "failed"),
    "an unknown status": ("status", "asleep"),
    "a priority that there is not": ("priority", 17),
    "a time beyond all dates": ("created_at", 1 << 62),
}
# What a hand writes into a column; only SQLite takes it.
OF_ANOTHER_KIND = {
    "a text for bytes": ("specification", "junk"),
    "a number for bytes": ("transitions", 7),
    "a date for a time": ("started_at", "2026-01-01"),
}


def spoil(database: Database, job_id: str, column: str, value: object) -> None:
    """Overwrite what is kept in a column of a job."""
    with database.engine.begin() as connection:
        statement = text(f"UPDATE jobs SET {column} = :value WHERE id = :id")
        connection.execute(statement, {"value": value, "id": job_id})


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_record_hides_no_other_and_says_so_itself(database: Database, what: str) -> None:
    check_damage(database, *DAMAGE[what])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", OF_ANOTHER_KIND)
def test_so_does_one_with_a_value_of_another_kind(database: Database, what: str) -> None:
    check_damage(database, *OF_ANOTHER_KIND[what])


def check_damage(database: Database, column: str, value: object) -> None:
    """One record with this value leaves the others readable, and says what it is itself."""
    good, bad, other = add(database, record(over=False), record(over=False), record(over=False))

    with structlog.testing.capture_logs() as logged:
        spoil(database, bad, column, value)

        assert listed(database) == [good, other]
        assert listed(database) == [good, other]
        found = database.write_now(partial(tables.get_jobs, ids=[good, bad, other]))
        assert {made.id for made in found} == {good, other}
        with pytest.raises(Damaged, match=f"The record of job '{bad}' is damaged.* backup"):
            database.write_now(partial(tables.get_job, job_id=bad))

    # It says which once, and nothing of what stands in it.
    assert [(line["event"], line["kind"], line["id"]) for line in logged] == [
        ("damaged record", "job", bad)
    ]
    assert database.write_now(partial(lookups.whose, job_id=bad)) == ("default", "alice", bad, None)


def test_a_damaged_record_does_not_end_the_paging(database: Database) -> None:
    ids = add(database, record(), record(), record())
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET transitions = :junk"), {"junk": b"?"})

    with database.engine.connect() as connection:
        found, after, _ = listing.list_jobs(connection, EVERYBODYS, JobFilter(), page=2, after=None)
        rest, end, _ = listing.list_jobs(connection, EVERYBODYS, JobFilter(), page=2, after=after)

    assert (found, rest, end) == ([], [], None)
    assert after is not None
    assert len(ids) == 3


def test_the_database_itself_keeps_active_names_apart(database: Database) -> None:
    add(database, record(name="taken", over=False), record(name="taken", over=True))

    with pytest.raises(IntegrityError):
        add(database, record(name="taken", over=False))


def test_single_jobs_can_be_made_visible(database: Database) -> None:
    first, named, _ = add(database, record(), record(name="shown"), record())
    visible = Visibility(singles=frozenset({("alice", first), ("alice", "shown")}))

    with database.engine.connect() as connection:
        found, *_ = listing.list_jobs(connection, visible, JobFilter(), page=10, after=None)
        nothing, *_ = listing.list_jobs(connection, Visibility(), JobFilter(), page=10, after=None)

    assert [made.id for made in found] == [first, named]
    assert nothing == []


def test_many_single_jobs_are_found_one_by_one(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "jobs.db"))
    migrate(database)
    people = [f"person-{number}" for number in range(400)]
    jobs = [record(owner=owner, name="train") for owner in people]
    add(database, *jobs)

    def steps(some: int) -> int:
        """How many hundreds of SQLite's steps a list of so many single jobs takes."""
        count = itertools.count()
        singles = {(job.owner, one) for job in jobs[:some] for one in (job.id, "train")}

        with database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_progress_handler(lambda: 0 * next(count), 100)
            visible = Visibility(singles=frozenset(singles))
            found, *_ = listing.list_jobs(connection, visible, JobFilter(), page=500, after=None)
            driver.set_progress_handler(None, 0)
        assert [job.id for job in found] == [job.id for job in jobs[:some]]
        return next(count)

    assert steps(400) < 15 * steps(40)
    database.close()


async def test_old_records_go_and_active_ones_stay(database: Database) -> None:
    old, active, new = add(
        database,
        record(age=timedelta(days=30)),
        record(age=timedelta(days=30), over=False),
        record(),
    )
    keep = Keep(age=timedelta(days=7), jobs=1000, log_bytes=1 << 40)

    removed = await Retention(database, {}, keep).sweep()

    assert removed == 1
    assert listed(database) == [active, new]
    assert listed(database, tag=["tests"]) == [active, new]
    assert old not in listed(database)


class Emptied(MemoryEngine):
    """It remembers whose logs it has removed."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: list[str] = []

    async def remove(self, job_id: str) -> None:
        self.removed.append(job_id)


@pytest.mark.postgres
async def test_each_of_several_servers_forgets_jobs_of_its_own_engines(
    postgres_server: PostgresServer,
) -> None:
    keep = Keep(age=timedelta(days=7), jobs=1000, log_bytes=1 << 40)
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        async with member(url, "one") as one, member(url, "two") as two:
            await one.seek("engine:first")
            await two.seek("engine:second")
            engines = {name: Emptied() for name in ("first", "second", "gone", "waiting")}
            old = record(age=timedelta(days=30))
            of = {name: replace(old, id=new_job_id(), engine=name) for name in engines}
            add(database, *of.values())
            # Nobody holds the last one now, and this server is about to.
            at_one = {name: engines[name] for name in ("first", "waiting")}

            removed = await Retention(database, at_one, keep, one.leases).sweep()

            assert removed == 2
            assert engines["first"].removed == [of["first"].id, of["gone"].id]
            assert engines["waiting"].removed == []
            assert listed(database) == [of["second"].id, of["waiting"].id]
        database.close()


async def test_the_oldest_go_beyond_the_count(database: Database) -> None:
    ids = add(database, *(record() for _ in range(5)))

    await Retention(database, {}, Keep(age=LONG, jobs=2, log_bytes=1 << 40)).sweep()

    assert listed(database) == ids[3:]


async def test_the_oldest_logs_go_beyond_the_bytes_and_their_records_stay(
    database: Database,
) -> None:
    ids = add(database, *(record(log_bytes=100) for _ in range(5)))

    await Retention(database, {}, Keep(age=LONG, jobs=1000, log_bytes=250)).sweep()

    with database.engine.connect() as connection:
        kept = [made for made in ids if not _get(connection, made).logs_removed]
    assert kept == ids[3:]
    assert listed(database) == ids


async def test_whoever_has_the_most_records_loses_the_oldest(database: Database) -> None:
    (bobs,) = add(database, record(owner="bob"))
    ids = add(database, *(record() for _ in range(5)))

    await Retention(database, {}, Keep(age=LONG, jobs=3, log_bytes=1 << 40)).sweep()

    assert listed(database) == [bobs, *ids[3:]]


async def test_whoever_has_the_most_output_loses_the_oldest(database: Database) -> None:
    (bobs,) = add(database, record(owner="bob", log_bytes=100))
    ids = add(database, *(record(log_bytes=100) for _ in range(5)))

    await Retention(database, {}, Keep(age=LONG, jobs=1000, log_bytes=350)).sweep()

    with database.engine.connect() as connection:
        kept = [made for made in (bobs, *ids) if not _get(connection, made).logs_removed]
    assert kept == [bobs, *ids[3:]]


def _get(connection: object, job_id: str) -> JobRecord:
    found = tables.get_job(connection, job_id)  # type: ignore[arg-type]
    assert found is not None
    return found
