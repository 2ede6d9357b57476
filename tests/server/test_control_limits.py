"""How many control jobs there are is counted where one more is submitted: in its transaction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from neuro.domain.errors import TooManyRequests
from neuro.domain.jobs import Container, JobStatus, Priority, Reason, Resources
from neuro.domain.names import new_job_id
from neuro.domain.resources import GIB
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.jobs import tables
from neuro.server.jobs.control_limits import check_control_limits
from neuro.server.jobs.plan import JobLimits
from neuro.server.jobs.record import JobRecord, Specification
from neuro.server.jobs.specification import CONTROL_AMOUNT

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


def job(owner: str, *, control: bool = True, is_over: bool = False) -> JobRecord:
    resources = Resources(cpu=1, memory=GIB, memory_mb=1024, shm=False)
    made = JobRecord(
        id=new_job_id(),
        owner=owner,
        name=None,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=NOW,
        specification=Specification(
            # What only looks as if it were one.
            container=Container(image="i", resources=resources, env={"E": '"control":true'}),
            amount=CONTROL_AMOUNT,
            control=control,
        ),
    ).stepped(Reason.CREATING, NOW)
    return made.ended(JobStatus.SUCCEEDED, None, NOW) if is_over else made


def submit(connection: Connection, owner: str, limits: JobLimits) -> None:
    check_control_limits(connection, owner, limits)
    tables.insert_job(connection, job(owner))


def test_active_control_jobs_are_counted_and_no_others(database: Database) -> None:
    kept = [job("alice"), job("alice--robot"), job("bob"), job("bob", is_over=True)]
    for record in (*kept, job("bob", control=False)):
        database.write_now(partial(tables.insert_job, record=record))

    def refusal(owner: str, limits: JobLimits) -> str | None:
        try:
            database.write_now(partial(check_control_limits, owner=owner, limits=limits))
        except TooManyRequests as error:
            return error.message
        return None

    assert refusal("alice", JobLimits(controls=4, controls_per_owner=3)) is None
    assert "2 bakes of 'alice'" in str(refusal("alice", JobLimits(controls_per_owner=2)))
    assert "2 bakes of 'alice'" in str(refusal("alice--ci", JobLimits(controls_per_owner=2)))
    assert refusal("alice-ci", JobLimits(controls_per_owner=1)) is None
    assert refusal("bob", JobLimits(controls_per_owner=2)) is None
    assert "3 bakes are driven" in str(refusal("carol", JobLimits(controls=3)))


@pytest.mark.parametrize(
    "limits", [JobLimits(controls=3), JobLimits(controls_per_owner=3)], ids=["of all", "of one"]
)
async def test_of_many_that_are_submitted_at_once_no_more_than_the_limit_get_in(
    database: Database, limits: JobLimits
) -> None:
    with ExitStack() as stack:
        servers = [database]
        if not database.is_sqlite:
            servers.append(Database(database.url))
            stack.callback(servers[1].close)

        told = await asyncio.gather(
            *(
                servers[number % len(servers)].write(partial(submit, owner="alice", limits=limits))
                for number in range(24)
            ),
            return_exceptions=True,
        )

    refused = [error for error in told if error is not None]
    assert [type(error) for error in refused] == [TooManyRequests] * 21


def test_those_that_were_active_before_they_were_counted_are_counted(database_url: str) -> None:
    database, config = Database(database_url), Config()
    config.set_main_option("script_location", "neuro.server.database:migrations")
    records = {
        "control": job("alice"),
        "plain": job("alice", control=False),
        "over": job("alice", is_over=True),
    }
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
        for name, record in records.items():
            specification = json.dumps(
                {"env": {"E": '"control":true'}}
                | ({"control": True} if record.specification.control else {}),
                separators=(",", ":"),
            )
            connection.execute(
                text(
                    "INSERT INTO jobs (id, owner, cluster, engine, status, priority, created_at,"
                    " run, placed, run_started, logs_removed, log_bytes, specification,"
                    " transitions) VALUES (:id, 'alice', 'c', 'e', :status, 1, 0, 0, true, true,"
                    " false, 0, :specification, :transitions)"
                ),
                {
                    "id": name,
                    "status": record.status.value,
                    "specification": specification.encode(),
                    "transitions": b"[]",
                },
            )

    migrate(database)

    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT id FROM jobs WHERE control")).scalars().all()
    assert found == ["control"]
    database.close()
