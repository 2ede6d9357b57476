"""Large records of one person do not keep the others waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from neuro.domain.bakes import (
    Attempt,
    CacheEntryRequest,
    ConfigFileRequest,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.errors import Conflict
from neuro.domain.flows import ProjectRequest
from neuro.server.bakes.leaving import leaving_with
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.projects.service import ProjectService
from tests.server.test_bakes_retention import House

LARGE = "x" * (1 << 20)
STEP = TaskTransition(created_at=datetime(2026, 1, 1, tzinfo=UTC), status=TaskStatus.SUCCEEDED)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    migrate(database)
    house = House(database)
    await house.move_in()
    yield house
    database.close()


async def attempt_of(house: House) -> Attempt:
    return await house.services.attempts.by_number(house.anna, await house.bake(), -1)


def task_of(attempt: Attempt, outputs: dict[str, str]) -> TaskRequest:
    return TaskRequest(
        attempt_id=attempt.id, yaml_id="large", outputs=outputs, state={}, statuses=[STEP]
    )


async def test_others_write_between_the_large_records_of_one_person(house: House) -> None:
    services, anna = house.services, house.anna
    attempt = await attempt_of(house)
    bake_id, project_id = attempt.bake_id, house.project.id
    begun, go = threading.Event(), threading.Event()
    done: list[str] = []

    def hold(connection: Connection) -> None:
        begun.set()
        assert go.wait(60)

    async def note(who: str, work: object) -> None:
        await work  # type: ignore[misc]
        done.append(who)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(house.database.write(hold))
        await asyncio.to_thread(begun.wait)
        file = ConfigFileRequest(bake_id=bake_id, filename="/w/x.yml", content=LARGE)
        entry = CacheEntryRequest(
            project_id=project_id, batch="b", task_id="t", key="k", outputs={"a": LARGE}
        )
        for work in (
            services.files.create(anna, file),
            services.files.create(anna, file),
            services.tasks.put(anna, [task_of(attempt, {"a": LARGE})]),
            services.cache.put(anna, entry),
        ):
            group.create_task(note("anna", work))
        # Packed in threads, they have come to the database when these threads are idle again.
        for _ in range(100):
            await asyncio.to_thread(lambda: None)
        flows = ProjectService(house.database, "default", partial(leaving_with, house.hub))
        group.create_task(
            note("another", flows.create_project(anna, ProjectRequest(name="another")))
        )
        for _ in range(100):
            await asyncio.to_thread(lambda: None)
        go.set()

    assert len(done) == 5
    assert done.index("another") <= 1


async def test_an_outcome_is_the_same_in_any_order_of_its_outputs(house: House) -> None:
    attempt = await attempt_of(house)
    await house.services.tasks.put(house.anna, [task_of(attempt, {"a": LARGE, "b": "2"})])

    again = task_of(attempt, {"b": "2", "a": LARGE})
    assert (await house.services.tasks.replace(house.anna, again)).outputs == again.outputs
    with pytest.raises(Conflict, match="what has ended stays"):
        await house.services.tasks.put(house.anna, [task_of(attempt, {"a": LARGE, "b": "3"})])
