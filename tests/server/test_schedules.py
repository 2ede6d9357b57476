"""Schedules: who may have which, and bakes that start when they are due, each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from sqlalchemy import Connection, update

from neuro.client import Client
from neuro.domain.bakes import (
    Attempt,
    Bake,
    BakeFilter,
    BakeMeta,
    CatchUp,
    Concurrency,
    Overlap,
    Schedule,
    ScheduledFile,
    ScheduleRequest,
    TaskStatus,
)
from neuro.domain.errors import Conflict, InvalidInput, NotFound
from neuro.domain.flows import Project, ProjectRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.service_accounts import ServiceAccountRequest
from neuro.domain.uris import parse_uri
from neuro.domain.users import User
from neuro.server.access import tables as access_tables
from neuro.server.access.service import AccessService
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.events import Hub, Observer
from neuro.server.bakes.leaving import leaving_with
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.fleet.leases import LeaseLost
from neuro.server.projects.service import ProjectService
from neuro.server.schedules import service as schedule_service
from neuro.server.schedules.runner import ScheduleRunner
from neuro.server.schedules.service import ScheduleService
from neuro.server.schedules.tables import next_due
from neuro.server.schedules.tables import schedules as schedule_table
from tests.server.bakes import until
from tests.server_process import ServerProcess, running_server

MONDAY = datetime(2026, 6, 1, 5, 30, tzinfo=UTC)
NO_SCHEDULE = "schedule-00000000-0000-4000-8000-000000000000"


def request(project_id: str, **changes: Any) -> ScheduleRequest:
    """Every morning at six."""
    whole = ScheduleRequest(
        project_id=project_id,
        batch="train",
        cron="0 6 * * *",
        workspace="/p",
        files=[
            ScheduledFile(role="flow", filename="/home/anna/.neuro/train.yml", content="kind: x"),
            ScheduledFile(
                role="project", filename="/home/anna/.neuro/project.yml", content="id: p"
            ),
            ScheduledFile(role="ws:build", filename="/home/anna/build.yml", content="kind: y"),
        ],
        graphs={"": {"only": []}},
        params={"size": "3"},
        tags=["nightly"],
        meta=BakeMeta(life_span=60.0, concurrency=Concurrency(group="gpu")),
    )
    return msgspec.structs.replace(whole, **changes)


class Heard(Observer):
    """What those who look after bakes are told."""

    def __init__(self) -> None:
        self.created: list[tuple[Bake, Attempt]] = []

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        self.created.append((bake, attempt))


@dataclass
class House:
    """A server's parts that schedules need, with a clock that the test sets."""

    database: Database
    now: datetime = MONDAY

    def __post_init__(self) -> None:
        self.hub = Hub()
        self.heard = Heard()
        self.hub.observe(self.heard)
        self.access = AccessService(self.database, b"k" * 32, "default")
        self.services = BakeServices.of(self.database, "default", self.hub)
        self.flows = ProjectService(self.database, "default", partial(leaving_with, self.hub))
        self.runner = self.make_runner()
        self.schedules = ScheduleService(
            self.database, self.services.guard, changed=self.runner.changed, now=lambda: self.now
        )

    def make_runner(self) -> ScheduleRunner:
        services = self.services
        return ScheduleRunner(
            self.database,
            services.guard,
            self.hub,
            services.attempts,
            self.access,
            now=lambda: self.now,
        )

    async def move_in(self) -> None:
        await self.access.add_user("anna")
        self.anna = await self.access.identity_of("anna")
        self.project = await self.flows.create_project(self.anna, ProjectRequest(name="p"))

    async def put(self, **changes: Any) -> Schedule:
        return await self.schedules.put(self.anna, request(self.project.id, **changes))

    async def schedule(self) -> Schedule:
        (one,) = [each async for each in self.schedules.list(self.anna, self.project.id)]
        return one

    async def at(self, now: datetime) -> list[Bake]:
        """What is started when the clock shows this."""
        self.now = now
        return await self.runner.start_due()

    async def end(self, bake: Bake) -> None:
        attempt = await self.services.attempts.by_number(self.anna, bake.id, -1)
        await self.services.attempts.change(attempt.id, result=TaskStatus.SUCCEEDED)

    async def result_of(self, bake: Bake) -> tuple[TaskStatus, str | None]:
        attempt = await self.services.attempts.by_number(self.anna, bake.id, -1)
        return attempt.result, attempt.message


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    database = Database(database_url)
    migrate(database)
    house = House(database)
    await house.move_in()
    yield house
    database.close()


def day(number: int, hour: int = 6, minute: int = 0) -> datetime:
    return datetime(2026, 6, number, hour, minute, tzinfo=UTC)


async def test_a_bake_is_started_when_it_is_due(house: House) -> None:
    made = await house.put()
    assert (made.owner, made.next_at, made.last_at) == ("anna", day(1), None)

    assert await house.at(day(1) - timedelta(seconds=1)) == []
    (bake,) = await house.at(day(1))

    kept = await house.services.bakes.bake(house.anna, bake.id)
    assert (kept.batch, kept.params, kept.tags) == ("train", {"size": "3"}, ["nightly", "schedule"])
    assert msgspec.json.decode(msgspec.json.encode(kept.graphs)) == {"": {"only": []}}
    assert kept.meta == BakeMeta(
        life_span=60.0, concurrency=Concurrency(group="gpu"), schedule=made.id
    )
    ((told, attempt),) = house.heard.created
    assert (told.id, attempt.number, attempt.result) == (bake.id, 1, TaskStatus.PENDING)
    configs = attempt.configs_meta
    assert configs.workspace == "/p"
    assert configs.project_config_id is not None
    for file_id, content in (
        (configs.flow_config_id, "kind: x"),
        (configs.project_config_id, "id: p"),
        (configs.action_config_ids["ws:build"], "kind: y"),
    ):
        assert (await house.services.files.file(house.anna, file_id)).content == content
    schedule = await house.schedule()
    assert (schedule.last_at, schedule.last_bake_id) == (day(1), bake.id)
    assert (schedule.next_at, schedule.message) == (day(2), None)
    assert await house.at(day(1, 6, 1)) == []


async def test_a_clock_that_is_set_back_starts_nothing_twice(house: House) -> None:
    await house.put(overlap=Overlap.ALLOW)

    assert len(await house.at(day(1))) == 1
    assert await house.at(day(1, 5, 59)) == []
    assert await house.at(day(1)) == []
    assert len(await house.at(day(2))) == 1


async def test_of_two_who_see_that_it_is_due_one_starts_it(house: House) -> None:
    await house.put(overlap=Overlap.ALLOW)
    house.now = day(1)

    found = await asyncio.gather(*(house.make_runner().start_due() for _ in range(4)))

    assert len([bake for started in found for bake in started]) == 1


@pytest.mark.parametrize(
    ("catch_up", "expected", "message"),
    [
        (CatchUp.NONE, [], "Missed, because the server was down: 2026-06-01 06:00 UTC."),
        (CatchUp.LAST, [3], None),
        (CatchUp.ALL, [1, 2, 3], None),
    ],
)
async def test_times_that_passed_while_the_server_was_down(
    house: House, catch_up: CatchUp, expected: list[int], message: str | None
) -> None:
    await house.put(catch_up=catch_up, overlap=Overlap.ALLOW)

    started = await house.at(day(3, 12))

    schedule = await house.schedule()
    assert len(started) == len(expected)
    assert schedule.last_at == (day(expected[-1]) if expected else None)
    assert (schedule.next_at, schedule.message) == (day(4), message)
    assert len(await house.at(day(4))) == 1


async def test_no_more_than_a_hundred_are_caught_up_on(house: House) -> None:
    await house.put(cron="* * * * *", catch_up=CatchUp.ALL, overlap=Overlap.ALLOW)

    started = await house.at(day(1) + timedelta(days=2))

    assert len(started) == 100
    assert (await house.schedule()).next_at == day(3) + timedelta(minutes=1)


async def test_a_bake_that_still_runs_is_waited_for(house: House) -> None:
    await house.put(overlap=Overlap.SKIP)
    (first,) = await house.at(day(1))

    assert await house.at(day(2)) == []

    schedule = await house.schedule()
    assert schedule.message == f"Skipped 2026-06-02 06:00 UTC: {first.id} was still running."
    assert (schedule.last_at, schedule.next_at) == (day(1), day(3))
    await house.end(first)
    assert len(await house.at(day(3))) == 1
    assert (await house.schedule()).message is None


async def test_bakes_may_run_beside_each_other(house: House) -> None:
    await house.put(overlap=Overlap.ALLOW)
    (first,) = await house.at(day(1))

    assert len(await house.at(day(2))) == 1
    assert await house.result_of(first) == (TaskStatus.PENDING, None)


async def test_a_bake_that_still_runs_may_be_cancelled(house: House) -> None:
    await house.put(overlap=Overlap.CANCEL)
    (first,) = await house.at(day(1))

    assert len(await house.at(day(2))) == 1

    message = "Cancelled by its schedule, which was due again at 2026-06-02 06:00 UTC."
    assert await house.result_of(first) == (TaskStatus.CANCELLED, message)


async def test_who_may_start_no_bake_any_more_cancels_none(house: House) -> None:
    await house.put(overlap=Overlap.CANCEL)
    (running,) = await house.at(day(1))
    await house.access.remove_user("anna")
    user = User(name="anna", is_admin=False, created_at=day(1))
    of_jobs = Permission(parse_uri("job://default/anna"), Action.MANAGE)
    house.database.write_now(lambda it: access_tables.add_user(it, user, [of_jobs]))

    assert await house.at(day(2)) == []

    assert await house.result_of(running) == (TaskStatus.PENDING, None)


async def test_of_many_that_are_caught_up_on_each_sees_the_one_before(house: House) -> None:
    await house.put(overlap=Overlap.SKIP, catch_up=CatchUp.ALL)

    assert len(await house.at(day(3, 12))) == 1
    schedule = await house.schedule()
    assert (schedule.last_at, schedule.next_at) == (day(1), day(4))


async def test_a_schedule_has_the_rights_that_its_owner_has_now(house: House) -> None:
    await house.put()
    before = await house.access.permissions("anna")

    def keep_only(schemes: set[str]) -> None:
        def change(connection: Any) -> None:
            access_tables.remove_user(connection, "anna")
            kept = [each for each in before if each.uri.scheme in schemes]
            access_tables.add_user(connection, user, kept)

        house.database.write_now(change)

    user = await house.access.user("anna")
    for number, schemes, lost in ((1, {"flow"}, "job://"), (2, {"job"}, "Project")):
        keep_only(schemes)
        assert await house.at(day(number)) == []
        told = (await house.schedule()).message
        assert told is not None
        assert told.startswith(f"No bake was started at 2026-06-0{number} 06:00 UTC: ")
        assert lost in told
    await house.access.remove_user("anna")
    assert await house.at(day(3)) == []
    assert "anna" in ((await house.schedule()).message or "")

    keep_only({"flow", "job"})
    assert len(await house.at(day(4))) == 1
    assert (await house.schedule()).message is None


async def test_a_server_that_another_has_replaced_puts_nothing_off(house: House) -> None:
    await house.put(overlap=Overlap.CANCEL)
    assert len(await house.at(day(2))) == 1  # the bake that the next one would cancel

    def lost(connection: Connection) -> None:
        raise LeaseLost("Another server starts the bakes of schedules.")

    house.runner.fence = lost
    with pytest.raises(LeaseLost):
        await house.at(day(3))

    after = await house.schedule()
    assert after.message is None
    assert after.next_at == day(3)
    house.runner.fence = None
    assert len(await house.at(day(3))) == 1


async def test_one_that_is_damaged_is_put_off_under_the_lease(house: House) -> None:
    damaged = await house.put(cron="30 5 * * *")

    def damage(connection: Connection) -> None:
        row = schedule_table.c.id == damaged.id
        connection.execute(update(schedule_table).where(row).values(request=b"?"))

    def lost(connection: Connection) -> None:
        raise LeaseLost("Another server starts the bakes of schedules.")

    house.database.write_now(damage)
    house.runner.fence = lost
    with pytest.raises(LeaseLost):
        await house.at(day(2))
    house.runner.fence = None

    assert await house.at(day(2)) == []  # It is still due.
    put_off = await house.database.read(next_due)
    assert put_off is not None
    assert put_off > house.now


async def test_a_damaged_schedule_does_not_hold_up_the_others(house: House) -> None:
    damaged = await house.put(batch="damaged", cron="30 5 * * *")
    await house.put(batch="sound")

    def damage(connection: Any) -> None:
        row = schedule_table.c.id == damaged.id
        connection.execute(update(schedule_table).where(row).values(request=b"?"))

    house.database.write_now(damage)

    assert [bake.batch for bake in await house.at(day(2))] == ["sound"]
    assert await house.at(day(2, 6, 1)) == []
    listed = [each.batch async for each in house.schedules.list(house.anna, house.project.id)]
    assert listed == ["sound"]

    again = await house.put(batch="damaged", cron="30 5 * * *")  # as its message says
    assert again.id == damaged.id
    assert [bake.batch for bake in await house.at(day(3, 5, 31))] == ["damaged"]

    await house.schedules.remove(house.anna, damaged.id)
    assert (await house.schedule()).batch == "sound"


async def test_a_schedule_is_changed_by_putting_it_again(house: House) -> None:
    first = await house.put()
    (bake,) = await house.at(day(1))

    house.now = day(5, 12)
    changed = await house.put(cron="30 8 * * MON-FRI", timezone="Europe/Berlin")

    assert (changed.id, changed.created_at) == (first.id, first.created_at)
    assert changed.last_bake_id == bake.id
    # Times before the change are not caught up on; a weekend lies between.
    assert changed.next_at == day(8, 6, 30)
    assert await house.at(day(5, 12)) == []


async def test_two_who_make_a_schedule_at_once_make_one(house: House) -> None:
    made = await asyncio.gather(*(house.put() for _ in range(4)))

    assert len({one.id for one in made}) == 1
    assert (await house.put(batch="other")).id != made[0].id


async def test_nobody_has_more_schedules_than_the_limit_nor_takes_the_places_of_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_service, "MAX_SCHEDULES", 1)
    await house.put()

    with pytest.raises(Conflict, match="You have 1 schedules already: remove one"):
        await house.put(batch="other")
    await house.put(cron="0 7 * * *")
    robot, _ = await house.access.service_accounts.create("anna", ServiceAccountRequest(name="ci"))
    service = await house.access.identity_of(robot.role)
    robots = await house.flows.create_project(service, ProjectRequest(name="p"))
    with pytest.raises(Conflict, match="You have 1 schedules already"):
        await house.schedules.put(service, request(robots.id))

    await house.access.add_user("bob")
    bob = await house.access.identity_of("bob")
    bobs = await house.flows.create_project(bob, ProjectRequest(name="p"))
    made = await house.schedules.put(bob, request(bobs.id))
    assert made.owner == "bob"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cron": "every morning"}, "write five fields"),
        ({"cron": "* * * * * *"}, "write five fields"),
        ({"timezone": "Mars/Olympus"}, "Unknown time zone 'Mars/Olympus'"),
        ({"files": []}, "one file whose role is 'flow'"),
        ({"batch": "a//b"}, "Invalid batch"),
        ({"batch": "a/../b"}, "Invalid batch"),
        ({"batch": "/b"}, "Invalid batch"),
        ({"batch": "a\tb"}, "Invalid batch"),
        ({"batch": "ü" * 128}, "Invalid batch"),
        ({"tags": ["a\nb"]}, "Invalid tag"),
        ({"graphs": {"": {"": []}}}, "Invalid id of a task"),
    ],
)
async def test_what_is_no_schedule_is_told(
    house: House, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await house.put(**changes)


# Over the wire, on a real server.


@pytest.fixture
async def project(client: Client) -> AsyncIterator[Project]:
    """A project of the owner's, gone after the test."""
    project = await client.flows.create_project("scheduled")
    yield project
    await client.flows.delete_project(project.id)


async def test_schedules_over_the_wire(
    server: ServerProcess, client: Client, alice: Client, project: Project
) -> None:
    made = await client.bakes.put_schedule(request(project.id))

    assert await client.bakes.schedules(project.id) == [made]
    assert (made.owner, made.params, made.tags) == (server.user, {"size": "3"}, ["nightly"])
    assert made.next_at is not None
    with pytest.raises(InvalidInput, match="write five fields"):
        await client.bakes.put_schedule(request(project.id, cron="daily"))
    with pytest.raises(NotFound):
        await alice.bakes.put_schedule(request(project.id))
    with pytest.raises(NotFound):
        await alice.bakes.delete_schedule(made.id)
    assert await alice.bakes.schedules(project.id) == []

    await client.bakes.delete_schedule(made.id)

    assert await client.bakes.schedules(project.id) == []
    for schedule_id in (made.id, NO_SCHEDULE, "x", "x y"):
        with pytest.raises(NotFound):
            await client.bakes.delete_schedule(schedule_id)


async def test_a_schedule_shows_times_that_every_client_reads(
    server: ServerProcess, client: Client, project: Project
) -> None:
    await client.bakes.put_schedule(request(project.id))
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/flow/schedules"

    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url, params={"project_id": project.id}) as answer,
    ):
        (shown,) = await answer.json()

    assert shown["next_at"].endswith("+00:00")
    assert "files" not in shown


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "data") as server:
        yield server


async def test_what_was_due_while_the_server_was_killed_is_started_once_when_it_is_back(
    own_server: ServerProcess,
) -> None:
    async with Client.connect(own_server.url, own_server.token) as client:
        project = await client.flows.create_project("scheduled")
        made = await client.bakes.put_schedule(request(project.id))
    own_server.kill()
    database = Database(sqlite_url(own_server.data_dir / "neuro.db"))
    # As if the server had been away for a day.
    yesterday = (made.next_at or MONDAY) - timedelta(days=1)
    database.write_now(lambda c: c.execute(update(schedule_table).values(next_at=yesterday)))
    database.close()

    for _ in range(2):
        own_server.start()
        async with Client.connect(own_server.url, own_server.token) as client:
            bake = await _first_bake(client, project)
            attempt = await until(client, bake.id, lambda it: it.executor_id is not None)
            main = await client.jobs.get(attempt.executor_id or "")
            (schedule,) = await client.bakes.schedules(project.id)
            bakes = await client.bakes.list(BakeFilter(project_id=project.id))
        own_server.kill()
        assert [each.id for each in bakes] == [schedule.last_bake_id]
        assert main.owner == own_server.user
        assert f"bake_id:{bake.id}" in main.tags
        assert schedule.last_at == yesterday
    own_server.start()


async def _first_bake(client: Client, project: Project) -> Bake:
    """The bake that the server starts as soon as it is up."""
    while not (found := await client.bakes.list(BakeFilter(project_id=project.id))):
        await asyncio.sleep(0.05)
    return found[0]
