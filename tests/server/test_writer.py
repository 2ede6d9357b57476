"""The writer of jobs: a database that is away loses nothing and blocks nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from sqlalchemy import Connection, text

from neuro.domain.errors import Unavailable
from neuro.domain.jobs import JobStatus
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.fleet.leases import LeaseLost
from neuro.server.jobs import tables
from neuro.server.jobs.expiry import mark_logs_removed
from neuro.server.jobs.leases import ALWAYS
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer
from tests.server.test_tables import add, record


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    writer.start(Background())
    yield writer
    await writer.close()


def rename_table(database: Database, old: str, new: str) -> None:
    """Put the jobs out of the database's reach, and back."""
    database.write_now(lambda c: c.execute(text(f"ALTER TABLE {old} RENAME TO {new}")))


def ended(job: JobRecord) -> JobRecord:
    return job.ended(JobStatus.FAILED, "Error", datetime.now(UTC), exit_code=3)


def kept_code(database: Database, job_id: str) -> int | None:
    kept = database.write_now(lambda c: tables.get_job(c, job_id))
    assert kept is not None
    return kept.exit_code


async def test_whoever_waits_is_told_and_the_record_is_written_later(
    database: Database, writer: Writer
) -> None:
    job = record(over=False)
    add(database, job)
    rename_table(database, "jobs", "away")

    over = ended(job)
    writer.save(over)
    with pytest.raises(Unavailable):
        await writer.flush()
    assert writer.unsaved(job.id) is over
    rename_table(database, "away", "jobs")

    await writer.settle()
    assert writer.unsaved(job.id) is None
    assert kept_code(database, job.id) == 3


async def test_a_newer_change_is_not_overwritten_by_what_was_put_back(
    database: Database, writer: Writer
) -> None:
    job = record(over=False)
    add(database, job)
    rename_table(database, "jobs", "away")
    writer.save(job)
    with pytest.raises(Unavailable):
        await writer.flush()

    writer.save(ended(job))
    rename_table(database, "away", "jobs")

    await writer.settle()
    assert kept_code(database, job.id) == 3


def refuse(database: Database, job_id: str, how: str) -> None:
    """Let the database take any record but one."""
    database.write_now(
        lambda c: c.execute(
            text(
                f"CREATE TRIGGER refuses BEFORE UPDATE ON jobs WHEN NEW.id = '{job_id}'"
                f" BEGIN SELECT {how}; END"
            )
        )
    )


@pytest.mark.parametrize("how", ["RAISE(ABORT, 'never')", "json('{')"])
async def test_a_record_that_the_database_refuses_stops_no_other(
    database: Database,
    writer: Writer,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, before, after = (record(over=False) for _ in range(3))
    for job in (bad, before, after):
        add(database, job)
    refuse(database, bad.id, how)

    refused = ended(bad)
    writer.save(refused)
    writer.save(ended(before))
    await writer.settle()
    writer.save(ended(after))
    await writer.flush()

    assert [kept_code(database, job.id) for job in (before, after)] == [3, 3]
    assert writer.unsaved(bad.id) is refused
    assert writer.trouble is None
    with pytest.raises(Unavailable, match=bad.id):
        await writer.flush(bad.id)
    assert capsys.readouterr().out.count(bad.id) == 1


async def test_a_record_that_cannot_even_be_encoded_stops_no_other(
    database: Database, writer: Writer
) -> None:
    bad, good = record(over=False), record(over=False)
    for job in (bad, good):
        add(database, job)

    writer.save(replace(bad, log_bytes=1 << 70))
    writer.save(ended(good))
    await writer.flush()

    assert kept_code(database, good.id) == 3


async def test_a_refused_record_is_written_once_the_database_takes_it(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.jobs.writer.REFUSED_SECONDS", 0.2)
    job, other = record(over=False), record(over=False)
    add(database, job, other)
    refuse(database, job.id, "RAISE(ABORT, 'not yet')")
    writer.save(ended(job))
    await writer.flush()
    assert writer.unsaved(job.id) is not None

    database.write_now(lambda c: c.execute(text("DROP TRIGGER refuses")))
    async with asyncio.timeout(30):
        while writer.unsaved(job.id) is not None:  # however often others change meanwhile
            writer.save(other)
            await writer.flush()

    assert kept_code(database, job.id) == 3


async def test_a_log_that_retention_has_removed_stays_removed_whatever_is_written_late(
    database: Database, writer: Writer
) -> None:
    job = record(over=False)
    add(database, job)
    writer.save(ended(job))
    await writer.settle()
    database.write_now(lambda connection: mark_logs_removed(connection, [job.id]))

    writer.save(ended(job))  # as after a commit whose answer was lost
    await writer.settle()

    found = database.write_now(lambda connection: tables.get_job(connection, job.id))
    assert found is not None
    assert found.logs_removed


async def test_closing_gives_up_on_a_database_that_stays_away(database: Database) -> None:
    writer = Writer(database)
    writer.start(Background())
    job = record(over=False)
    add(database, job)
    rename_table(database, "jobs", "away")
    writer.save(ended(job))

    async with asyncio.timeout(15):
        await writer.close()

    rename_table(database, "away", "jobs")


async def test_a_dead_writer_says_so_and_ends_the_server(database: Database) -> None:
    writer = Writer(database)
    died = asyncio.Event()
    background = Background(died.set)
    writer.start(background)
    database.close()

    writer.save(record())
    with pytest.raises(Unavailable, match="is ending"):
        await writer.flush()

    async with asyncio.timeout(5):
        await died.wait()
        with pytest.raises(Unavailable, match="is ending"):
            await writer.settle()
        assert background.troubles
        await writer.close()


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    script = (
        "from neuro.server.log import configure_logging; import structlog; configure_logging();"
        "log = structlog.get_logger('x'); log.error('lost'); log.error('lost'); print('goes on')"
    )

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, check=False
        )

    assert done.stdout == b"goes on\n"


class Lost:
    """The lease of an engine that another server has; this one finds out as it writes."""

    is_held = False

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """``meanwhile`` is what happens while it is written."""
        self._meanwhile = meanwhile

    def check(self, connection: Connection) -> None:
        self._meanwhile()
        raise LeaseLost("Another server has taken over the engine.")


async def test_nothing_is_written_of_an_engine_that_is_another_servers(
    database: Database, writer: Writer
) -> None:
    job = record(over=False)
    add(database, job)
    writer.fence(job.engine, Lost())

    for _ in range(2):  # the second before anybody has told the reconciler
        writer.save(ended(job))
        await writer.settle()

    assert kept_code(database, job.id) is None
    writer.fence(job.engine, ALWAYS)
    writer.save(ended(job))
    await writer.settle()
    assert kept_code(database, job.id) == 3


async def test_an_engine_that_is_taken_again_keeps_its_lease_whatever_was_being_written(
    database: Database, writer: Writer
) -> None:
    job = record(over=False)
    add(database, job)
    loop, taken = asyncio.get_running_loop(), threading.Event()

    def take_again() -> None:
        writer.drop(job.engine)
        writer.fence(job.engine, ALWAYS)
        writer.save(ended(job))
        taken.set()

    def meanwhile() -> None:
        loop.call_soon_threadsafe(take_again)
        assert taken.wait(30)

    writer.fence(job.engine, Lost(meanwhile))
    writer.save(job)
    await writer.settle()
    await writer.settle()

    assert kept_code(database, job.id) == 3
