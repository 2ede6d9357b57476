"""Following bakes: the state first, then every change, whatever happens at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, update

from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeEvent,
    BakeMeta,
    BakeRequest,
    Concurrency,
    ConfigsMeta,
    Kept,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.flows import ProjectRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.uris import parse_uri
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.attempts import turns
from neuro.server.bakes.attempts.follow import PAGE, Events, Follower
from neuro.server.bakes.attempts.tables import attempts as attempt_table
from neuro.server.bakes.events import Hub, Observer
from neuro.server.bakes.leaving import leaving_with
from neuro.server.bakes.tasks.tables import page_of_tasks
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.projects.service import ProjectService
from tests.server_process import running_server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CONFIGS = ConfigsMeta(workspace="/ws", flow_config_id="f")
OWNER = Identity(
    "anna", Grants.of([Permission(parse_uri("flow://default/anna"), Action.MANAGE)]), "token"
)
PENDING, RUNNING, SUCCEEDED = TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.SUCCEEDED


def attempt_of(bake: Bake, number: int, result: TaskStatus) -> AttemptRequest:
    return AttemptRequest(bake_id=bake.id, number=number, result=result, configs_meta=CONFIGS)


def task_of(attempt: Attempt, yaml_id: str, *statuses: TaskStatus) -> TaskRequest:
    return TaskRequest(
        attempt_id=attempt.id,
        yaml_id=yaml_id,
        outputs={},
        state={},
        statuses=[TaskTransition(created_at=NOW, status=status) for status in statuses],
    )


@pytest.fixture
async def attempt(client: Client) -> AsyncIterator[Attempt]:
    """A pending attempt of a bake of the owner's, gone after the test."""
    project = await client.flows.create_project("followed")
    bake = await client.bakes.create(BakeRequest(project_id=project.id, batch="b", graphs={}))
    yield await client.bakes.create_attempt(attempt_of(bake, 1, PENDING))
    if await client.flows.project_by_name(project.name) is not None:
        await client.flows.delete_project(project.id)


async def state(events: AsyncGenerator[BakeEvent]) -> list[BakeEvent]:
    """What comes before the changes."""
    found: list[BakeEvent] = []
    async for event in events:
        if event.synced:
            return found
        found.append(event)
    raise AssertionError("the stream has ended")


async def news(events: AsyncGenerator[BakeEvent]) -> BakeEvent:
    """The next event that says something."""
    async for event in events:
        if event != BakeEvent():
            return event
    raise AssertionError("the stream has ended")


async def test_a_stream_begins_with_the_state_and_goes_on_with_the_changes(
    client: Client, attempt: Attempt
) -> None:
    first = await client.bakes.create_task(task_of(attempt, "first", PENDING))
    bake = await client.bakes.get(attempt.bake_id)

    async with aclosing(client.bakes.events(attempt.bake_id)) as events:
        assert await state(events) == [BakeEvent(attempt=attempt), BakeEvent(task=first)]

        second = await client.bakes.create_task(task_of(attempt, "second", PENDING))
        assert await news(events) == BakeEvent(task=second)
        first = await client.bakes.replace_task(task_of(attempt, "first", PENDING, RUNNING))
        assert await news(events) == BakeEvent(task=first)
        ended = await client.bakes.replace_attempt(attempt_of(bake, 1, TaskStatus.CANCELLED))
        assert await news(events) == BakeEvent(attempt=ended)
        # What changes nothing is no news, nor is another attempt of the bake.
        await client.bakes.replace_attempt(attempt_of(bake, 1, SUCCEEDED))
        other = await client.bakes.create_attempt(attempt_of(bake, 2, PENDING))
        await client.bakes.create_task(task_of(other, "first", PENDING))
        second = await client.bakes.replace_task(task_of(attempt, "second", SUCCEEDED))
        assert await news(events) == BakeEvent(task=second)

    async with aclosing(client.bakes.events(attempt.bake_id)) as events:
        assert (await state(events))[0].attempt == other
    async with aclosing(client.bakes.events(attempt.bake_id, 1)) as events:
        assert (await state(events))[0].attempt == ended


async def test_two_follow_one_attempt_and_one_of_them_wants_no_tasks(
    client: Client, attempt: Attempt
) -> None:
    bake = await client.bakes.get(attempt.bake_id)
    task = await client.bakes.create_task(task_of(attempt, "t", PENDING))
    async with (
        aclosing(client.bakes.events(bake.id)) as all_of_it,
        aclosing(client.bakes.events(bake.id, tasks=False, executor=True)) as alone,
    ):
        assert await state(all_of_it) == [BakeEvent(attempt=attempt), BakeEvent(task=task)]
        assert await state(alone) == [BakeEvent(attempt=attempt)]

        task = await client.bakes.replace_task(task_of(attempt, "t", SUCCEEDED))
        ended = await client.bakes.replace_attempt(attempt_of(bake, 1, SUCCEEDED))

        assert await news(all_of_it) == BakeEvent(task=task)
        assert await news(all_of_it) == BakeEvent(attempt=ended)
        assert await news(alone) == BakeEvent(attempt=ended)


async def test_no_change_is_lost_between_the_state_and_the_changes(
    client: Client, attempt: Attempt
) -> None:
    ids = [f"t{number}" for number in range(300)]

    async def work() -> None:
        for status in (PENDING, RUNNING, SUCCEEDED):
            for start in range(0, len(ids), 10):
                part = ids[start : start + 10]
                await client.bakes.put_tasks([task_of(attempt, one, status) for one in part])

    async def follow() -> None:
        order = [PENDING, RUNNING, SUCCEEDED]
        seen: dict[str, TaskStatus] = {}
        async with aclosing(client.bakes.events(attempt.bake_id)) as events:
            async for event in events:
                if event.task is not None:
                    before = seen.get(event.task.yaml_id, PENDING)
                    assert order.index(event.task.status) >= order.index(before)
                    seen[event.task.yaml_id] = event.task.status
                if len(seen) == len(ids) and set(seen.values()) == {SUCCEEDED}:
                    return

    async with asyncio.timeout(60):
        await asyncio.gather(work(), *(follow() for _ in range(4)))


async def test_a_stream_ends_with_its_bake(client: Client, attempt: Attempt) -> None:
    bake = await client.bakes.get(attempt.bake_id)

    async with aclosing(client.bakes.events(bake.id)) as events:
        await state(events)
        await client.flows.delete_project(bake.project_id)

        assert [event async for event in events if event != BakeEvent()] == []


async def test_a_server_that_stops_ends_the_streams(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            project = await client.flows.create_project("p")
            request = BakeRequest(project_id=project.id, batch="b", graphs={})
            bake = await client.bakes.create(request)
            await client.bakes.create_attempt(attempt_of(bake, 1, PENDING))
            async with aclosing(client.bakes.events(bake.id)) as events:
                await state(events)

                # It would wait for half a minute, and we do not, if it waited for the streams.
                code = await asyncio.to_thread(server.stop)

                with pytest.raises(ServerUnreachable):
                    await news(events)
    assert code == 0


class Heard(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        self.calls.append(("created", bake.id, attempt.id))

    def attempt_changed(self, before: Attempt, after: Attempt) -> None:
        self.calls.append(("changed", before.result, after.result))

    def executor_attached(self, attempt: Attempt) -> None:
        self.calls.append(("attached", attempt.id))

    def executor_detached(self, attempt: Attempt) -> None:
        self.calls.append(("detached", attempt.id))

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        self.calls.append(("touched", bake_id, attempt_id))

    def project_removed(self, project_id: str, unfinished: Sequence[Attempt]) -> None:
        self.calls.append(("removed", project_id, [attempt.id for attempt in unfinished]))


class Place:
    """The services of bakes on a database, with one bake and its attempt."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.hub = Hub()
        self.heard = Heard()
        self.hub.observe(self.heard)
        self.flows = ProjectService(self.database, "default", partial(leaving_with, self.hub))
        self.services = BakeServices.of(self.database, "default", self.hub)

    async def fill(self) -> None:
        project = await self.flows.create_project(OWNER, ProjectRequest(name="p"))
        request = BakeRequest(project_id=project.id, batch="b", graphs={})
        self.bake = await self.services.bakes.create(OWNER, request)
        first = attempt_of(self.bake, 1, PENDING)
        self.attempt = await self.services.attempts.create(OWNER, first)

    def follow(
        self, *, tasks: bool = True, executor: bool = False, heartbeat: float = 60.0
    ) -> AsyncGenerator[Events]:
        follower = Follower(self.database, self.hub, heartbeat)
        return follower.follow(self.attempt, tasks=tasks, executor=executor)

    async def put(self, yaml_ids: Sequence[str], *statuses: TaskStatus) -> None:
        await self.services.tasks.put(
            OWNER, [task_of(self.attempt, yaml_id, *statuses) for yaml_id in yaml_ids]
        )


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    place = Place(database_url)
    await place.fill()
    yield place
    place.database.close()


async def synced(events: AsyncGenerator[Events]) -> list[BakeEvent]:
    found: list[BakeEvent] = []
    async for page in events:
        found += page
        if page and page[-1].synced:
            return found
    raise AssertionError("the stream has ended")


async def test_a_bake_that_has_just_gone_is_not_followed(place: Place) -> None:
    events = place.follow()
    await place.flows.remove_project(OWNER, place.bake.project_id)

    assert [page async for page in events] == []


async def test_a_damaged_attempt_does_not_keep_a_server_from_the_others(place: Place) -> None:
    request = BakeRequest(project_id=place.bake.project_id, batch="b", graphs={})
    other = await place.services.bakes.create(OWNER, request)
    sound = await place.services.attempts.create(OWNER, attempt_of(other, 1, PENDING))

    def damage(connection: Connection) -> None:
        of_first = attempt_table.c.id == place.attempt.id
        connection.execute(update(attempt_table).where(of_first).values(configs=b"x"))

    place.database.write_now(damage)

    assert [each.id for each in await place.services.attempts.unfinished()] == [sound.id]


async def test_a_slow_reader_gets_the_newest_state_of_each_thing_once(place: Place) -> None:
    async with aclosing(place.follow()) as events:
        await synced(events)
        for steps in range(1, 20):
            await place.put(["a", "b"], *[RUNNING] * steps)
        await place.put(["a"], SUCCEEDED)
        await place.services.attempts.change(place.attempt.id, result=RUNNING)
        await place.services.attempts.change(place.attempt.id, result=SUCCEEDED)

        page = await anext(events)

    assert [event.attempt.result for event in page if event.attempt] == [SUCCEEDED]
    tasks = [event.task for event in page if event.task]
    assert [(task.yaml_id, task.status, len(task.statuses)) for task in tasks] == [
        ("a", SUCCEEDED, 1),
        ("b", RUNNING, 19),
    ]


async def test_a_late_reader_of_many_tasks_gets_them_in_parts(place: Place) -> None:
    ids = [f"t{number:04}" for number in range(1000)]
    async with aclosing(place.follow()) as events:
        await synced(events)
        await place.put(ids, PENDING)

        found: list[str] = []
        while len(found) < len(ids):
            page = await anext(events)
            assert 0 < len(page) <= PAGE
            found += [event.task.yaml_id for event in page if event.task]

    assert found == ids


async def test_what_changes_while_the_state_is_told_is_told_again(place: Place) -> None:
    ids = [f"t{number:02}" for number in range(PAGE + 10)]
    await place.put(ids, PENDING)
    async with aclosing(place.follow()) as events:
        (first,) = await anext(events)
        assert first.attempt == place.attempt
        await place.services.attempts.change(place.attempt.id, result=RUNNING)
        page = await anext(events)
        assert [event.task.yaml_id for event in page if event.task] == ids[:PAGE]
        await place.put(ids[:1], SUCCEEDED)
        await synced(events)

        changes = await anext(events)

    assert [event.attempt.result for event in changes if event.attempt] == [RUNNING]
    assert [event.task.status for event in changes if event.task] == [SUCCEEDED]


async def test_a_silent_attempt_gives_signs_of_life(place: Place) -> None:
    async with aclosing(place.follow(heartbeat=0.01)) as events:
        await synced(events)

        assert [await anext(events) for _ in range(3)] == [[BakeEvent()]] * 3
    assert msgspec.json.encode(BakeEvent()) == b"{}"


async def test_who_fell_behind_is_given_the_present_state(place: Place) -> None:
    # Another server's: nothing that it does is told here.
    elsewhere = BakeServices.of(place.database, "default", Hub())
    async with aclosing(place.follow()) as events:
        await synced(events)
        await elsewhere.tasks.put(OWNER, [task_of(place.attempt, "a", RUNNING)])
        await elsewhere.attempts.change(place.attempt.id, result=RUNNING)

        place.hub.fell_behind()

        told = [event for _ in range(2) for event in await anext(events)]
        assert [event.attempt.result for event in told if event.attempt] == [RUNNING]
        assert [event.task.yaml_id for event in told if event.task] == ["a"]
        flows = ProjectService(place.database, "default", partial(leaving_with, Hub()))
        await flows.remove_project(OWNER, place.bake.project_id)
        place.hub.fell_behind()
        assert [page async for page in events] == []


async def in_line(place: Place, group: str = "gpu") -> Attempt:
    """The attempt of one more bake, which waits for those of its group."""
    meta = BakeMeta(concurrency=Concurrency(group=group))
    project_id = place.bake.project_id
    request = BakeRequest(project_id=project_id, batch="b", graphs={}, meta=meta)
    bake = await place.services.bakes.create(OWNER, request)
    return await place.services.attempts.create(OWNER, attempt_of(bake, 1, PENDING))


async def end(place: Place, attempt: Attempt) -> None:
    await place.services.attempts.change(attempt.id, result=SUCCEEDED)


async def test_whom_a_bake_waits_for_is_told_to_those_there_and_those_who_come(
    place: Place,
) -> None:
    first, second = await in_line(place), await in_line(place)
    other = await in_line(place, "other")
    place.attempt = third = await in_line(place)

    async with aclosing(place.follow(tasks=False, executor=True)) as events:
        assert BakeEvent(ahead=[first.bake_id, second.bake_id]) in await synced(events)
        await end(place, first)
        assert await anext(events) == [BakeEvent(ahead=[second.bake_id])]
        await end(place, other)
        await end(place, second)
        found = [event async for event in _until_ahead(events)]
        assert found[-1] == BakeEvent(ahead=[])

    async with aclosing(place.follow()) as events:
        assert BakeEvent(ahead=[]) in await synced(events)
    await end(place, third)
    async with aclosing(place.follow()) as events:
        assert all(event.ahead is None for event in await synced(events))


async def _until_ahead(events: AsyncGenerator[Events]) -> AsyncGenerator[BakeEvent]:
    async for page in events:
        for event in page:
            yield event
            if event.ahead is not None:
                return


async def test_who_has_gone_with_its_bake_keeps_nobody_waiting(place: Place) -> None:
    first, second = await in_line(place), await in_line(place)
    await end(place, first)
    again = AttemptRequest(
        bake_id=first.bake_id, number=2, result=PENDING, configs_meta=first.configs_meta
    )

    # A later attempt stands at the end, and a bake never waits for itself.
    restarted = await place.services.attempts.create(OWNER, again)

    def ahead(attempt: Attempt) -> list[str] | None:
        with place.database.engine.connect() as connection:
            line = turns.ahead(connection, attempt.id)
        return None if line is None else [turn.bake_id for turn in line]

    assert ahead(first) is None
    assert ahead(second) == []
    assert ahead(restarted) == [second.bake_id]
    await end(place, second)
    assert ahead(restarted) == []


async def test_observers_hear_of_all_that_matters(place: Place) -> None:
    heard, attempt, bake = place.heard, place.attempt, place.bake
    assert heard.calls == [("created", bake.id, attempt.id)]
    heard.calls.clear()

    await place.services.attempts.attempt(OWNER, attempt.id)
    await place.put(["a"], PENDING)
    assert heard.calls == [("touched", bake.id, attempt.id)] * 2
    heard.calls.clear()

    await place.services.attempts.replace(OWNER, attempt_of(bake, 1, RUNNING))
    await place.services.attempts.replace(OWNER, attempt_of(bake, 1, RUNNING))
    assert heard.calls == [("changed", PENDING, RUNNING)]
    heard.calls.clear()

    await place.flows.remove_project(OWNER, bake.project_id)
    assert heard.calls == [("removed", bake.project_id, [attempt.id])]


class Reader(Observer):
    """Reads the tasks of an attempt at the moment when it hears of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tasks: list[str] = []

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        found = self._database.write_now(partial(page_of_tasks, attempt.id, PAGE, None))
        self.tasks = [task.yaml_id for task in found]


async def test_who_hears_of_an_attempt_finds_what_it_keeps(place: Place) -> None:
    await place.put(["a", "b"], SUCCEEDED)
    await place.services.attempts.replace(OWNER, attempt_of(place.bake, 1, TaskStatus.FAILED))
    reader = Reader(place.database)
    place.hub.observe(reader)
    place.heard.calls.clear()

    request = attempt_of(place.bake, 2, PENDING)
    kept = Kept(attempt=1, tasks=["a", "b"])
    place.attempt = await place.services.attempts.create(
        OWNER, msgspec.structs.replace(request, kept=kept)
    )

    assert reader.tasks == ["a", "b"]
    assert place.heard.calls == [("created", place.bake.id, place.attempt.id)]
    async with aclosing(place.follow()) as events:
        found = [event.task for event in await synced(events) if event.task]
    assert [(task.yaml_id, task.status) for task in found] == [("a", SUCCEEDED), ("b", SUCCEEDED)]


async def test_a_driver_is_attached_as_long_as_one_of_its_streams_is_open(place: Place) -> None:
    calls, attempt = place.heard.calls, place.attempt
    calls.clear()
    one, other = place.follow(executor=True), place.follow(executor=True)
    async with aclosing(place.follow()) as watcher:
        await synced(watcher)
        assert not place.hub.is_driven(attempt.id)
    await synced(one)
    await synced(other)
    assert calls == [("attached", attempt.id)] * 2

    await one.aclose()
    assert place.hub.is_driven(attempt.id)
    assert calls == [("attached", attempt.id)] * 2
    await other.aclose()
    assert not place.hub.is_driven(attempt.id)
    assert calls[2:] == [("detached", attempt.id)]


async def test_what_the_server_changes_itself_obeys_the_same_rules(place: Place) -> None:
    attempts = place.services.attempts
    assert await attempts.unfinished() == [place.attempt]
    named = await attempts.change(place.attempt.id, executor_id="job-1")
    assert named is not None
    assert (named.result, named.executor_id) == (PENDING, "job-1")

    failed = await attempts.change(place.attempt.id, result=TaskStatus.FAILED, message="gone")
    assert await attempts.change(place.attempt.id, result=RUNNING, executor_id="job-2") == failed

    assert failed is not None
    assert (failed.executor_id, failed.message) == ("job-1", "gone")
    assert await attempts.unfinished() == []
    assert await attempts.change("attempt-unknown", result=RUNNING) is None


async def test_a_change_is_told_even_if_who_made_it_has_left(place: Place) -> None:
    async with aclosing(place.follow()) as events:
        await synced(events)
        change = asyncio.create_task(place.put(["a"], PENDING))
        await asyncio.sleep(0)
        change.cancel()

        page = await anext(events)

    assert [event.task.yaml_id for event in page if event.task] == ["a"]
