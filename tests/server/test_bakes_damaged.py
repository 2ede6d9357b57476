"""Records of bakes that are damaged: the others are as they were, and who reads them is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeFilter,
    BakeImageRequest,
    BakeMeta,
    BakeRequest,
    CacheEntryRequest,
    Concurrency,
    ConfigsMeta,
    TaskStatus,
)
from neuro.domain.errors import Damaged, NotFound
from neuro.domain.flows import Project
from tests.server.bakes import ended, event_of
from tests.server.wire import Wire
from tests.server_process import SETTINGS, ServerProcess, running_server

CONFIGS = ConfigsMeta(workspace="/ws", flow_config_id="f")
# Over a kilobyte they are kept compressed.
LARGE = {"": {f"task-{number}": [f"task-{number - 1}"] for number in range(1, 100)}}
HALF_JSON = b'{"params":{"password":"se'
# More than are read from the database at once; the last one of those is damaged too.
COUNT, PAGE = 60, 50
# What nobody has begun is ended soon.
IMPATIENT = f"{SETTINGS}[bakes]\nstart = 0.5\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


def damage(server: ServerProcess, table: str, column: str, id: str, blob: bytes) -> None:
    """Overwrite what is kept in a column of one row, behind the server's back."""
    with closing(sqlite3.connect(server.data_dir / "neuro.db", timeout=30)) as database, database:
        statement = f"UPDATE {table} SET {column} = ? WHERE id = ?"
        assert database.execute(statement, (blob, id)).rowcount == 1


def half(server: ServerProcess, table: str, column: str, id: str) -> None:
    """Cut off what is kept in a column of one row."""
    with closing(sqlite3.connect(server.data_dir / "neuro.db", timeout=30)) as database:
        statement = f"SELECT {column} FROM {table} WHERE id = ?"
        (blob,) = database.execute(statement, (id,)).fetchone()
    damage(server, table, column, id, blob[: len(blob) // 2])


async def make(
    client: Client,
    project: Project,
    name: str | None = None,
    *,
    large: bool = False,
    group: str | None = None,
) -> Bake:
    graphs = LARGE if large else {"": {"only": []}}
    meta = BakeMeta(concurrency=Concurrency(group=group) if group else None)
    request = BakeRequest(project_id=project.id, batch="train", graphs=graphs, name=name, meta=meta)
    return await client.bakes.create(request)


async def begin(
    client: Client, bake: Bake, number: int = 1, result: TaskStatus = TaskStatus.FAILED
) -> Attempt:
    request = AttemptRequest(bake_id=bake.id, number=number, result=result, configs_meta=CONFIGS)
    return await client.bakes.create_attempt(request)


async def test_a_list_goes_on_without_the_damaged(
    server: ServerProcess, client: Client, wire: Wire
) -> None:
    project = await client.flows.create_project("listed")
    bakes = [await make(client, project, large=number == 30) for number in range(COUNT)]
    damaged = [bakes[number] for number in (0, 20, 30, PAGE - 1)]
    damage(server, "flow_bakes", "details", damaged[0].id, HALF_JSON)
    half(server, "flow_bakes", "graphs", damaged[1].id)
    half(server, "flow_bakes", "graphs", damaged[2].id)
    damage(server, "flow_bakes", "details", damaged[3].id, b"")

    left = [bake.id for bake in bakes if bake not in damaged]
    query = BakeFilter(project_id=project.id)
    assert [bake.id for bake in await client.bakes.list(query)] == left
    query = BakeFilter(project_id=project.id, reverse=True, fetch_last_attempt=True)
    assert [bake.id for bake in await client.bakes.list(query)] == left[::-1]
    status, array = await wire.call("GET", f"bakes?project_id={project.id}")
    assert (status, [each["id"] for each in array]) == (200, left)

    for bake in damaged:
        with pytest.raises(Damaged, match=f"The record of bake '{bake.id}' is damaged"):
            await client.bakes.get(bake.id)
        assert bake.id in server.log()
    assert (await wire.call("GET", f"bakes/{damaged[0].id}"))[0] == 500
    assert "password" not in server.log()


async def test_a_damaged_attempt_hides_neither_its_bake_nor_the_others(
    server: ServerProcess, client: Client
) -> None:
    project = await client.flows.create_project("attempts")
    bake = await make(client, project, "nightly")
    first = await begin(client, bake)
    second = await begin(client, bake, 2)
    damage(server, "flow_attempts", "configs", second.id, HALF_JSON)

    query = BakeFilter(project_id=project.id, fetch_last_attempt=True)
    (listed,) = await client.bakes.list(query)
    assert (listed.id, listed.last_attempt) == (bake.id, None)
    assert await client.bakes.attempts(bake.id) == [first]
    assert await client.bakes.attempt(bake.id, 1) == first
    said = f"The record of attempt '{second.id}' is damaged"
    with pytest.raises(Damaged, match=said):
        await client.bakes.attempt(bake.id)
    with pytest.raises(Damaged, match=said):
        await client.bakes.get_attempt(second.id)
    with pytest.raises(Damaged, match=said):
        await client.bakes.by_name(project.id, "nightly")
    # What would follow it is not known either.
    with pytest.raises(Damaged, match=said):
        await begin(client, bake, 3)


async def test_a_damaged_image_hides_no_other(server: ServerProcess, client: Client) -> None:
    project = await client.flows.create_project("images")
    bake = await make(client, project)
    images = [
        await client.bakes.add_image(
            BakeImageRequest(bake_id=bake.id, ref=f"image:me:v{number}", yaml_defs=["images.me"])
        )
        for number in range(3)
    ]
    damage(server, "flow_bake_images", "yaml_defs", images[1].id, HALF_JSON)

    assert await client.bakes.images(bake.id) == [images[0], images[2]]


async def test_a_damaged_cache_entry_is_none_until_the_next_outcome(
    server: ServerProcess, client: Client
) -> None:
    project = await client.flows.create_project("cache")
    request = CacheEntryRequest(
        project_id=project.id, batch="b", task_id="t", key="k", outputs={"a": "b"}
    )
    entry = await client.bakes.add_cache_entry(request)
    damage(server, "flow_cache_entries", "outputs", entry.id, HALF_JSON)

    assert await client.bakes.cache_entry(project.id, "b", "t", "k") is None
    await client.bakes.add_cache_entry(request)
    kept = await client.bakes.cache_entry(project.id, "b", "t", "k")
    assert kept is not None
    assert kept.outputs == {"a": "b"}


async def test_who_may_not_see_a_bake_is_not_told_that_it_is_damaged(
    server: ServerProcess, client: Client, alice: Client
) -> None:
    project = await client.flows.create_project("hidden")
    bake = await make(client, project, "nightly")
    attempt = await begin(client, bake)
    damage(server, "flow_attempts", "configs", attempt.id, b"")
    for _ in range(2):
        with pytest.raises(NotFound):
            await alice.bakes.get(bake.id)
        with pytest.raises(NotFound):
            await alice.bakes.get_attempt(attempt.id)
        assert await alice.bakes.by_name(project.id, "nightly") is None
        damage(server, "flow_bakes", "details", bake.id, b"")


async def test_nobody_waits_for_a_damaged_bake(server: ServerProcess, client: Client) -> None:
    project = await client.flows.create_project("group")
    first, second = [await make(client, project, group="g") for _ in range(2)]
    await begin(client, first, result=TaskStatus.PENDING)
    async with aclosing(client.bakes.events(first.id, executor=True)) as driving:
        await anext(driving)
        damage(server, "flow_bakes", "details", first.id, HALF_JSON)
        await begin(client, second, result=TaskStatus.PENDING)
        await event_of(client, second.id, lambda event: event.ahead == [first.id])

    # Nobody drives the first one any more, so the server looks at it.
    await event_of(client, second.id, lambda event: event.ahead == [])


async def test_a_server_starts_and_looks_after_the_others(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", settings=IMPATIENT) as server:
        async with Client.connect(server.url, server.token) as client:
            project = await client.flows.create_project("left")
            damaged = await make(client, project, "damaged")
            await begin(client, damaged, result=TaskStatus.PENDING)
            sound = await make(client, project, "sound")
            await begin(client, sound, result=TaskStatus.PENDING)
        server.stop()
        damage(server, "flow_bakes", "details", damaged.id, HALF_JSON)
        server.start()
        async with Client.connect(server.url, server.token) as client:
            # Nobody has begun it: to look after it means to end it.
            assert (await ended(client, sound.id)).result is TaskStatus.FAILED
            with pytest.raises(Damaged):
                await client.bakes.get(damaged.id)

            await client.flows.delete_project(project.id)
            with pytest.raises(NotFound):
                await client.bakes.get(damaged.id)
