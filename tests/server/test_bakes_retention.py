"""Old bakes and outcomes go, with all that hangs on them; what is at work, or new, stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    BakeImageRequest,
    BakeRequest,
    CacheEntryRequest,
    ConfigFileRequest,
    ConfigsMeta,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.errors import NotFound
from neuro.domain.flows import ProjectRequest
from neuro.server.access.service import AccessService
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.cache.tables import entries
from neuro.server.bakes.events import Hub
from neuro.server.bakes.leaving import leaving_with
from neuro.server.bakes.retention import SETTLED, FlowRetention, KeepFlows, keep_flows
from neuro.server.bakes.tables import bakes
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.database.schema import metadata
from neuro.server.projects.service import ProjectService
from neuro.server.settings import load_settings

LONG = timedelta(days=1000)
DAY = timedelta(days=1)
# What hangs on a bake.
TABLES = ("bakes", "bake_tags", "attempts", "tasks", "config_files", "bake_images")


class House:
    """A server's parts that know of bakes, and one project."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hub = Hub()
        self.services = BakeServices.of(database, "default", self.hub)
        self.made = 0

    async def move_in(self) -> None:
        access = AccessService(self.database, b"k" * 32, "default")
        await access.add_user("anna")
        self.anna = await access.identity_of("anna")
        flows = ProjectService(self.database, "default", partial(leaving_with, self.hub))
        self.project = await flows.create_project(self.anna, ProjectRequest(name="p"))

    async def bake(
        self,
        *,
        ago: timedelta | None = None,
        result: TaskStatus = TaskStatus.SUCCEEDED,
        owner: str | None = None,
    ) -> str:
        """A bake with one of everything; ``ago`` is how long ago it ended, or None: it has not."""
        self.made += 1
        services, anna = self.services, self.anna
        request = BakeRequest(
            project_id=self.project.id, batch="train", graphs={"": {"only": []}}, tags=["nightly"]
        )
        bake = await services.bakes.create(anna, request)
        file = await services.files.create(
            anna, ConfigFileRequest(bake_id=bake.id, filename="/w/train.yml", content="kind: batch")
        )
        await services.images.create(
            anna, BakeImageRequest(bake_id=bake.id, ref="image:x", yaml_defs=["only"])
        )
        attempt = await self.attempt(bake.id, 1, file.id)
        step = TaskTransition(created_at=datetime.now(UTC), status=TaskStatus.RUNNING)
        await services.tasks.create(
            anna, TaskRequest(attempt_id=attempt.id, yaml_id="only", statuses=[step])
        )
        if ago is not None:
            await self.end(attempt, ago, result)
        if owner is not None:
            another = update(bakes).where(bakes.c.id == bake.id).values(owner=owner)
            await self.database.write(lambda connection: connection.execute(another))
        return bake.id

    async def attempt(self, bake_id: str, number: int, file_id: str = "file") -> Attempt:
        request = AttemptRequest(
            bake_id=bake_id,
            number=number,
            result=TaskStatus.RUNNING,
            configs_meta=ConfigsMeta(workspace="/w", flow_config_id=file_id),
        )
        return await self.services.attempts.create(self.anna, request)

    async def end(
        self, attempt: Attempt, ago: timedelta, result: TaskStatus = TaskStatus.SUCCEEDED
    ) -> None:
        await self.services.attempts.change(attempt.id, result=result)
        moment = datetime.now(UTC) - ago
        await self.database.write(
            lambda connection: connection.execute(
                update(bakes).where(bakes.c.id == attempt.bake_id).values(finished_at=moment)
            )
        )

    async def outcome(self, key: str, ago: timedelta) -> None:
        request = CacheEntryRequest(
            project_id=self.project.id,
            batch="train",
            task_id="only",
            key=key,
            created_at=datetime.now(UTC) - ago,
            raw_id="job-that-is-gone",
            outputs={"x": "1"},
            state={},
        )
        await self.services.cache.put(self.anna, request)

    async def sweep(
        self, *, age: timedelta = LONG, count: int = 1000, cache_age: timedelta = LONG
    ) -> int:
        keep = KeepFlows(age=age, bakes=count, cache_age=cache_age)
        return await FlowRetention(self.database, self.hub, keep).sweep()

    async def left(self) -> list[str]:
        query = select(bakes.c.id).order_by(bakes.c.sequence)
        return await self.database.read(lambda c: list(c.execute(query).scalars()))

    async def keys(self) -> list[str]:
        query = select(entries.c.key).order_by(entries.c.key)
        return await self.database.read(lambda c: list(c.execute(query).scalars()))

    async def rows(self) -> dict[str, int]:
        counts = {
            name: select(func.count()).select_from(metadata.tables[f"flow_{name}"])
            for name in TABLES
        }
        return await self.database.read(
            lambda c: {name: c.execute(count).scalar_one() for name, count in counts.items()}
        )


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    database = Database(database_url)
    migrate(database)
    house = House(database)
    await house.move_in()
    yield house
    database.close()


async def test_old_bakes_go_with_all_that_hangs_on_them(house: House) -> None:
    await house.bake(ago=30 * DAY)
    await house.bake(ago=8 * DAY, result=TaskStatus.FAILED)
    assert await house.rows() == dict.fromkeys(TABLES, 2)
    running, recent = await house.bake(), await house.bake(ago=6 * DAY)

    removed = await house.sweep(age=7 * DAY)

    assert (removed, await house.left()) == (2, [running, recent])
    assert await house.rows() == dict.fromkeys(TABLES, 2)


async def test_those_that_ended_first_go_beyond_the_count(house: House) -> None:
    last = await house.bake(ago=1 * DAY)
    middle = await house.bake(ago=2 * DAY)
    await house.bake(ago=4 * DAY)
    await house.bake(ago=3 * DAY)
    running = await house.bake()

    removed = await house.sweep(count=2)

    assert (removed, await house.left()) == (2, [last, middle, running])


async def test_whoever_has_the_most_bakes_loses_those_that_ended_first(house: House) -> None:
    bobs = await house.bake(ago=9 * DAY, owner="bob")
    long_agos = await house.bake(ago=8 * DAY)
    await house.database.write(
        lambda c: c.execute(update(bakes).where(bakes.c.id == long_agos).values(owner=None))
    )
    await house.bake(ago=3 * DAY)
    middle = await house.bake(ago=2 * DAY)
    last = await house.bake(ago=1 * DAY)

    removed = await house.sweep(count=4)

    assert (removed, await house.left()) == (1, [bobs, long_agos, middle, last])


async def test_what_has_just_ended_costs_nobody_else_a_bake(house: House) -> None:
    bobs = await house.bake(ago=9 * DAY, owner="bob")
    new = [await house.bake(ago=timedelta()) for _ in range(3)]

    assert await house.sweep(count=2) == 0

    assert await house.left() == [bobs, *new]


async def test_more_go_than_are_read_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.server.bakes.retention.BATCH", 2)
    for days in range(2, 7):
        await house.bake(ago=days * DAY)
        await house.outcome(f"key-{days}", days * DAY)

    removed = await house.sweep(age=2.5 * DAY, cache_age=3.5 * DAY)

    assert (removed, len(await house.left()), await house.keys()) == (4, 1, ["key-2", "key-3"])


async def test_a_bake_that_was_begun_again_stays(house: House) -> None:
    bake_id = await house.bake(ago=30 * DAY)
    again = await house.attempt(bake_id, 2)

    assert await house.sweep(age=7 * DAY, count=0) == 0
    await house.end(again, 8 * DAY)
    assert await house.sweep(age=7 * DAY) == 1

    assert await house.rows() == dict.fromkeys(TABLES, 0)


async def test_what_has_just_ended_stays_whatever_the_settings(house: House) -> None:
    new = await house.bake(ago=timedelta())
    await house.bake(ago=2 * SETTLED)

    assert await house.sweep(age=timedelta(), count=0) == 1

    assert await house.left() == [new]


async def test_a_bake_that_never_had_an_attempt_ends_and_goes(house: House) -> None:
    long_ago = datetime.now(UTC) - 30 * DAY
    for created_at in (long_ago, None):
        await house.services.bakes.create(
            house.anna,
            BakeRequest(
                project_id=house.project.id, batch="train", graphs={}, created_at=created_at
            ),
        )
    _, new = await house.left()

    assert await house.sweep(age=7 * DAY) == 0
    later = datetime.now(UTC) - 8 * DAY
    await house.database.write(
        lambda c: c.execute(
            update(bakes).where(bakes.c.finished_at.is_not(None)).values(finished_at=later)
        )
    )
    assert await house.sweep(age=7 * DAY) == 1

    assert await house.left() == [new]


async def test_those_who_follow_a_bake_are_told_that_it_is_gone(house: House) -> None:
    bake_id = await house.bake(ago=30 * DAY)
    attempt = await house.services.attempts.by_number(house.anna, bake_id, -1)
    is_synced = asyncio.Event()

    async def follow() -> None:
        events = house.services.follower.follow(attempt, tasks=False, executor=False)
        async with aclosing(events):
            async for some in events:
                if any(event.synced for event in some):
                    is_synced.set()

    async with asyncio.timeout(30):
        following = asyncio.create_task(follow())
        await is_synced.wait()
        await house.sweep(age=7 * DAY)
        await following

    with pytest.raises(NotFound):
        await house.services.bakes.bake(house.anna, bake_id)


async def test_outcomes_go_by_their_age_and_outlive_bakes_and_jobs(house: House) -> None:
    await house.bake(ago=30 * DAY)
    await house.outcome("old", 31 * DAY)
    await house.outcome("renewed", 31 * DAY)
    await house.outcome("renewed", 2 * DAY)
    await house.outcome("recent", 29 * DAY)

    await house.sweep(age=7 * DAY, cache_age=30 * DAY)

    assert await house.left() == []
    assert await house.keys() == ["recent", "renewed"]


def test_the_settings_say_how_much_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[retention]\ndays = 2\nbakes = 3\ncache_days = 0.5\n")

    assert keep_flows(load_settings(file).retention) == KeepFlows(
        age=2 * DAY, bakes=3, cache_age=timedelta(hours=12)
    )
    assert keep_flows(load_settings(tmp_path / "none").retention) == KeepFlows(
        age=180 * DAY, bakes=10_000, cache_age=365 * DAY
    )
