"""Bakes through several servers of one database: told by all, looked after by one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from neuro.client import Client
from neuro.domain.bakes import (
    BakeEvent,
    BakeFilter,
    BakeMeta,
    Concurrency,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.errors import PlatformError
from tests.postgres import PostgresServer
from tests.server.bakes import ended, make_bake, write
from tests.server.bakes import until as attempt_until
from tests.server.fleet.servers import SOON
from tests.server.jobs import submit
from tests.servers.fleet import SETTINGS, Fleet, Member, fleet_of

pytestmark = pytest.mark.postgres
RUNNING, FAILED, SUCCEEDED = TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.SUCCEEDED
IMPATIENT = (
    SETTINGS
    + """
[server]
name = "{name}"
[bakes]
executor_silence = 1.5
start = 600
grace = 0.1
"""
)
PATIENT = IMPATIENT.replace("executor_silence = 1.5", "executor_silence = 600")


@pytest.fixture
def direct_database(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


def holder(fleet: Fleet, database: str, lease: str = "bakes") -> Member | None:
    """Who has a lease; None for nobody of these."""
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        statement = text("SELECT holder FROM leases WHERE name = :name")
        found = connection.execute(statement, {"name": lease}).scalar()
    engine.dispose()
    for member in fleet.members.values():
        if (member.data_dir / "server").read_text().strip() == found:
            return member
    return None


async def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


def others(fleet: Fleet, member: Member) -> list[Member]:
    return [other for other in fleet.members.values() if other is not member]


async def task_of(client: Client, attempt_id: str, yaml_id: str, *statuses: TaskStatus) -> None:
    at = [TaskTransition(created_at=datetime.now(UTC), status=status) for status in statuses]
    await client.bakes.replace_task(
        TaskRequest(attempt_id=attempt_id, yaml_id=yaml_id, statuses=at, outputs={}, state={})
    )


async def first(events: AsyncIterator[BakeEvent], holds: Callable[[BakeEvent], bool]) -> BakeEvent:
    async with asyncio.timeout(30):
        async for event in events:
            if holds(event):
                return event
    raise AssertionError("the events have ended")


async def test_what_one_server_writes_is_told_by_the_other(
    tmp_path: Path, shared_database: str
) -> None:
    fleet = Fleet(tmp_path, shared_database, PATIENT)
    try:
        fleet.add("one")
        fleet.add("two")
        # At once, on an empty database.
        fleet.start()
        async with fleet["one"].connect() as one, fleet["two"].connect() as two:
            project = await one.flows.create_project("shared")
            bake, attempt = await make_bake(two, project.id, name="nightly")
            listed = await one.bakes.list(BakeFilter(project_id=project.id))
            assert [each.id for each in listed] == [bake.id]
            async with aclosing(one.bakes.events(bake.id)) as events:
                await first(events, lambda event: bool(event.synced))

                await task_of(two, attempt.id, "only", RUNNING)
                told = await first(events, lambda event: event.task is not None)
                assert told.task is not None
                assert told.task.yaml_id == "only"
                await write(two, attempt, SUCCEEDED)
                told = await first(events, lambda event: event.attempt is not None)
                assert told.attempt is not None
                assert told.attempt.result is SUCCEEDED
                await two.flows.delete_project(project.id)

                # The bake is gone, and its stream ends.
                async with asyncio.timeout(30):
                    async for _ in events:
                        pass
    finally:
        fleet.close()


async def test_a_bake_waits_for_one_that_another_server_was_given(
    tmp_path: Path, direct_database: str
) -> None:
    meta = BakeMeta(concurrency=Concurrency(group="gpu"))
    with fleet_of(
        "one", "two", folder=tmp_path, database=direct_database, settings=PATIENT
    ) as fleet:
        async with fleet["one"].connect() as one, fleet["two"].connect() as two:
            project = await one.flows.create_project("shared")
            before, attempt = await make_bake(one, project.id, meta=meta)
            bake, _ = await make_bake(two, project.id, meta=meta)
            async with aclosing(two.bakes.events(bake.id)) as events:
                told = await first(events, lambda event: event.ahead is not None)
                assert told.ahead == [before.id]

                await write(one, attempt, SUCCEEDED)

                told = await first(events, lambda event: event.ahead is not None)
                assert told.ahead == []


async def test_another_server_looks_after_bakes_when_the_one_that_did_is_killed(
    tmp_path: Path, shared_database: str
) -> None:
    with fleet_of(
        "one", "two", "three", folder=tmp_path, database=shared_database, settings=IMPATIENT
    ) as fleet:
        supervising = holder(fleet, shared_database)
        assert supervising is not None
        left = others(fleet, supervising)
        async with left[0].connect() as client:
            project = await client.flows.create_project("shared")
            bake, attempt = await make_bake(client, project.id)

            supervising.kill()
            killed = time.monotonic()
            await write(client, attempt, RUNNING)
            await until(lambda: holder(fleet, shared_database) in left)
            assert time.monotonic() - killed < SOON

            # Nobody drives it, as the server that took over finds.
            assert (await ended(client, bake.id)).result is FAILED


async def test_a_server_that_was_frozen_ends_no_bake_that_goes_on(
    tmp_path: Path, direct_database: str
) -> None:
    with fleet_of(
        "one", "two", folder=tmp_path, database=direct_database, settings=IMPATIENT
    ) as fleet:
        frozen = holder(fleet, direct_database)
        assert frozen is not None
        (other,) = others(fleet, frozen)
        async with other.connect() as client:
            project = await client.flows.create_project("shared")
            bake, attempt = await make_bake(client, project.id)
            await write(client, attempt, RUNNING)
            async with aclosing(client.bakes.events(bake.id, executor=True)) as events:
                await first(events, lambda event: bool(event.synced))

                frozen.freeze()
                await until(lambda: holder(fleet, direct_database) is other)
                # Longer than a bake may be without a sign of life, by the frozen server's clock.
                await asyncio.sleep(2.0)
                frozen.thaw()
                async with frozen.connect() as back:
                    found = await back.bakes.get_attempt(attempt.id)
                    assert found.result is RUNNING
                    await task_of(back, attempt.id, "only", RUNNING)
                told = await first(events, lambda event: event.task is not None)
                assert told.task is not None

                assert (await client.bakes.get_attempt(attempt.id)).result is RUNNING
                await write(client, attempt, SUCCEEDED)


async def test_a_driver_is_seen_on_whichever_server_its_stream_is(
    tmp_path: Path, direct_database: str
) -> None:
    with fleet_of(
        "one", "two", folder=tmp_path, database=direct_database, settings=IMPATIENT
    ) as fleet:
        supervising = holder(fleet, direct_database)
        assert supervising is not None
        (other,) = others(fleet, supervising)
        async with supervising.connect() as client, other.connect() as elsewhere:
            project = await client.flows.create_project("shared")
            bake, attempt = await make_bake(client, project.id)
            await write(client, attempt, RUNNING)
            async with aclosing(elsewhere.bakes.events(bake.id, executor=True)) as events:
                await first(events, lambda event: bool(event.synced))
                # More than the silence that is allowed.
                await asyncio.sleep(3.0)
                assert (await client.bakes.attempts(bake.id))[0].result is RUNNING

                other.kill()

                with pytest.raises((PlatformError, AssertionError)):
                    await first(events, lambda event: False)
            # The stream has gone with its server.
            assert (await ended(client, bake.id)).result is FAILED


async def test_a_main_job_that_dies_on_any_server_has_a_successor(
    tmp_path: Path, direct_database: str
) -> None:
    with fleet_of(
        "one", "two", folder=tmp_path, database=direct_database, settings=PATIENT
    ) as fleet:
        supervising = holder(fleet, direct_database)
        assert supervising is not None
        (other,) = others(fleet, supervising)
        async with other.connect() as client:
            project = await client.flows.create_project("shared")
            bake, attempt = await make_bake(client, project.id)
            tags = [f"bake_id:{bake.id}"]
            dead = await submit(client, "sh -c 'kill -9 $$'", tags=tags, preset_name="own")
            await write(client, attempt, RUNNING, executor_id=dead.id)

            successor = await attempt_until(
                client, bake.id, lambda attempt: attempt.executor_id != dead.id
            )

            assert successor.result is RUNNING
            await client.flows.delete_project(project.id)
