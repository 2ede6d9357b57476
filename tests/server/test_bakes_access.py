"""Who may read and write bakes, and what is too much of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.bakes import (
    AttemptRequest,
    BakeImageRequest,
    BakeRequest,
    CacheEntryRequest,
    ConfigFileRequest,
    ConfigsMeta,
    TaskRequest,
    TaskStatus,
)
from neuro.domain.flows import Project
from neuro.domain.permissions import Action
from tests.server.wire import Wire
from tests.server_process import ServerProcess

CONFIGS = {"workspace": "/ws", "flow_config_id": "f"}


class Things:
    """One of everything, in a project of the owner's."""

    def __init__(self, project: Project, ids: dict[str, str]) -> None:
        self.project = project
        self._ids = {"project": project.id, **ids}
        bake, attempt = ids["bake"], ids["attempt"]
        task = {"attempt_id": attempt, "yaml_id": "t", "statuses": []}
        entry = {"project_id": project.id, "batch": "b", "task_id": "t", "key": "k"}
        tried = {"bake_id": bake, "number": 1, "result": "failed", "configs_meta": CONFIGS}
        image = {"bake_id": bake, "ref": "new", "yaml_defs": ["t"]}
        file = {"bake_id": bake, "filename": "f", "content": ""}
        baked = {"project_id": project.id, "batch": "b", "graphs": {}}
        self.writes: list[tuple[str, str, Any]] = [
            ("POST", "bakes", baked),
            ("PATCH", f"bakes/{bake}", {"graphs": {}}),
            ("POST", "attempts", {**tried, "number": 2}),
            ("PUT", "attempts/replace", tried),
            ("POST", "tasks", {**task, "yaml_id": "new"}),
            ("PUT", "tasks/replace", task),
            ("PUT", "tasks/batch", [task]),
            ("POST", "config_files", file),
            ("POST", "cache_entries", entry),
            ("DELETE", f"cache_entries?project_id={project.id}", None),
            ("POST", "bake_images", image),
            ("PATCH", f"bake_images/{ids['image']}", {"status": "built"}),
            ("GET", f"bakes/{bake}/events?executor=1", None),
        ]
        self.reads = [
            f"bakes/{bake}",
            f"bakes/by_name?project_id={project.id}&name=shared",
            f"attempts/{attempt}",
            f"attempts/by_number?bake_id={bake}&number=-1",
            f"tasks/{ids['task']}",
            f"tasks/by_yaml_id?attempt_id={attempt}&yaml_id=t",
            f"config_files/{ids['file']}",
            f"cache_entries/{ids['entry']}",
            f"cache_entries/by_key?project_id={project.id}&batch=b&task_id=t&key=k",
            f"bake_images/{ids['image']}",
            f"bake_images/by_ref?bake_id={bake}&ref=r",
        ]
        self.lists = [
            f"bakes?project_id={project.id}",
            f"attempts?bake_id={bake}",
            f"tasks?attempt_id={attempt}",
            f"bake_images?bake_id={bake}",
        ]
        self.bake = bake

    def body_of(self, path: str) -> Any:
        return next(body for _, route, body in self.writes if route == path)


@pytest.fixture
async def things(client: Client) -> AsyncIterator[Things]:
    project = await client.flows.create_project("guarded")
    bakes = client.bakes
    request = BakeRequest(project_id=project.id, batch="b", graphs={}, name="shared")
    bake = await bakes.create(request)
    attempt = await bakes.create_attempt(
        AttemptRequest(
            bake_id=bake.id,
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=ConfigsMeta(workspace="/ws", flow_config_id="f"),
        )
    )
    task = await bakes.create_task(TaskRequest(attempt_id=attempt.id, yaml_id="t"))
    file = await bakes.add_file(ConfigFileRequest(bake_id=bake.id, filename="f", content=""))
    image = await bakes.add_image(BakeImageRequest(bake_id=bake.id, ref="r", yaml_defs=["t"]))
    entry = await bakes.add_cache_entry(
        CacheEntryRequest(project_id=project.id, batch="b", task_id="t", key="k")
    )
    ids = {
        "bake": bake.id,
        "attempt": attempt.id,
        "task": task.id,
        "file": file.id,
        "image": image.id,
        "entry": entry.id,
    }
    yield Things(project, ids)
    await client.flows.delete_project(project.id)


@asynccontextmanager
async def shared(client: Client, uri: str, action: Action) -> AsyncIterator[None]:
    """Alice may do this for a while."""
    await client.permissions.share(uri, "alice", action)
    yield
    await client.permissions.revoke(uri, "alice")


async def test_a_stranger_finds_and_changes_nothing(
    client: Client, alices_wire: Wire, things: Things
) -> None:
    before = await client.bakes.get(things.bake)

    for method, path, body in things.writes:
        assert (await alices_wire.call(method, path, body))[0] == 404, (method, path)
    for path in [*things.reads, f"bakes/{things.bake}/events"]:
        assert (await alices_wire.call("GET", path))[0] == 404, path
    for path in things.lists:
        assert await alices_wire.call("GET", path) == (200, []), path

    assert await client.bakes.get(things.bake) == before


@pytest.mark.parametrize("named", ["name", "id"])
async def test_who_may_read_a_project_changes_nothing_in_it(
    client: Client, alices_wire: Wire, server: ServerProcess, things: Things, named: str
) -> None:
    last = things.project.name if named == "name" else things.project.id
    before = await client.bakes.get(things.bake)

    async with shared(client, f"flow://default/{server.user}/{last}", Action.READ):
        for method, path, body in things.writes:
            assert (await alices_wire.call(method, path, body))[0] == 403, (method, path)
        for path in things.reads:
            expected = 404 if path.startswith("cache_entries/by_key") else 200
            assert (await alices_wire.call("GET", path))[0] == expected, path
        for path in things.lists:
            _, found = await alices_wire.call("GET", path)
            assert len(found) == 1, path

    assert await client.bakes.get(things.bake) == before


async def test_who_may_write_a_project_bakes_in_it(
    client: Client, alices_wire: Wire, server: ServerProcess, things: Things
) -> None:
    uri = f"flow://default/{server.user}/{things.project.id}"
    async with shared(client, uri, Action.WRITE):
        _, bake = await alices_wire.call("POST", "bakes", things.body_of("bakes"))
        _, attempt = await alices_wire.call(
            "POST", "attempts", {**things.body_of("attempts"), "bake_id": bake["id"], "number": 1}
        )
        bakes_own = {"bake_id": bake["id"]}
        attempts_own = {"attempt_id": attempt["id"], "yaml_id": "t", "statuses": []}
        image = {**things.body_of("bake_images"), **bakes_own}
        for method, path, body in (
            ("PATCH", f"bakes/{bake['id']}", {"graphs": {}}),
            ("POST", "config_files", {**things.body_of("config_files"), **bakes_own}),
            ("POST", "tasks", {**attempts_own, "yaml_id": "new"}),
            ("PUT", "tasks/replace", attempts_own),
            ("PUT", "tasks/batch", [attempts_own]),
            ("POST", "bake_images", image),
            ("POST", "cache_entries", things.body_of("cache_entries")),
            ("DELETE", f"cache_entries?project_id={things.project.id}", None),
        ):
            status, answer = await alices_wire.call(method, path, body)
            assert status in (200, 201, 204), (method, path, answer)


async def test_nobody_but_its_owner_changes_what_a_bake_runs(
    client: Client, alices_wire: Wire, server: ServerProcess, things: Things
) -> None:
    # What is left to others, or belongs to the project.
    others = ("bakes", "cache_entries")
    before = await client.bakes.get(things.bake)

    uri = f"flow://default/{server.user}/{things.project.id}"
    async with shared(client, uri, Action.WRITE):
        for method, path, body in things.writes:
            if path.partition("?")[0] in others:
                continue
            status, answer = await alices_wire.call(method, path, body)
            assert (status, "with the rights of" in answer["error"]) == (403, True), (method, path)

    assert await client.bakes.get(things.bake) == before
    assert len(await client.bakes.attempts(things.bake)) == 1


async def test_others_cancel_a_bake_and_restart_it_as_it_was(
    client: Client, alices_wire: Wire, server: ServerProcess, things: Things
) -> None:
    tried = things.body_of("attempts")
    restarted = {**tried, "number": 2, "result": "pending"}
    changed = {**restarted, "configs_meta": {**CONFIGS, "flow_config_id": "another"}}

    uri = f"flow://default/{server.user}/{things.project.id}"
    async with shared(client, uri, Action.WRITE):
        cancelled = {**tried, "number": 1, "result": "cancelled", "executor_id": "job-of-alice"}
        status, ended = await alices_wire.call("PUT", "attempts/replace", cancelled)
        assert (status, ended["result"], ended["executor_id"]) == (200, "cancelled", None)
        assert (await alices_wire.call("POST", "attempts", changed))[0] == 403
        running = {**restarted, "result": "running"}
        assert (await alices_wire.call("POST", "attempts", running))[0] == 403
        named = {**restarted, "executor_id": "job-of-alice"}
        status, made = await alices_wire.call("POST", "attempts", named)
        assert (status, made["number"], made["executor_id"]) == (201, 2, None)

    assert (await client.bakes.get(things.bake)).owner == server.user


async def test_a_project_gives_nobody_the_outcomes_of_another(
    client: Client, wire: Wire, alices_wire: Wire, server: ServerProcess, things: Things
) -> None:
    outcome = {"project_id": things.project.id, "batch": "b", "task_id": "t"}
    found = f"cache_entries/by_key?project_id={things.project.id}&batch=b&task_id=t&key="
    forged = "~" + hashlib.sha256(b"alice\0taken").hexdigest()

    uri = f"flow://default/{server.user}/{things.project.id}"
    async with shared(client, uri, Action.WRITE):
        for key in ("taken", forged):
            entry = {**outcome, "key": key, "outputs": {"x": "of the project's owner"}}
            status, made = await wire.call("POST", "cache_entries", entry)
            assert (status, made["key"]) == (201, key)
            assert (await alices_wire.call("GET", found + key))[0] == 404
        hers = {**outcome, "key": "taken", "outputs": {"x": "hers"}}
        assert (await alices_wire.call("POST", "cache_entries", hers))[0] == 201
        _, taken = await alices_wire.call("GET", found + "taken")
        assert (taken["key"], taken["outputs"]) == ("taken", {"x": "hers"})

    _, own = await wire.call("GET", found + "taken")
    assert own["outputs"] == {"x": "of the project's owner"}


TOO_LONG = "x" * 256
TOO_LONG_ID = "x" * 1025


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"batch": ""}, 400),
        ({"batch": "a//b"}, 400),
        ({"batch": "../b"}, 400),
        ({"batch": "a\n"}, 400),
        ({"batch": TOO_LONG}, 400),
        ({"name": ""}, 400),
        ({"name": TOO_LONG}, 400),
        ({"name": "a\0"}, 400),
        ({"name": "a\n"}, 400),
        ({"name": "é" * 128}, 400),
        ({"tags": ["t"] * 257}, 400),
        ({"tags": [""]}, 400),
        ({"tags": ["a\0"]}, 400),
        ({"graphs": {"": {"": []}}}, 400),
        ({"meta": {"concurrency": {"group": ""}}}, 400),
        ({"meta": {"concurrency": {"group": "g" * 1025}}}, 400),
        ({"meta": {"concurrency": {"group": "a\nb"}}}, 400),
        ({"meta": {"life_span": -1}}, 400),
        ({"meta": {"life_span": 1e300}}, 400),
        ({"graphs": {"": {TOO_LONG_ID: []}}}, 400),
        ({"graphs": {"": {f"t{number}": [] for number in range(20_001)}}}, 400),
        ({"params": {"p": "x" * (1 << 20)}}, 413),
        ({"meta": {"git_info": None, "hashes": {"h": "x" * (1 << 20)}}}, 413),
        ({"params": {"p": 1}}, 400),
        ({"created_at": "yesterday"}, 400),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, 400),
        ({"graphs": None}, 400),
    ],
)
async def test_a_bake_that_cannot_be_kept_is_refused(
    wire: Wire, things: Things, change: Any, status: int
) -> None:
    body = {"project_id": things.project.id, "batch": "b", "graphs": {}, **change}

    answer, told = await wire.call("POST", "bakes", body)

    assert (answer, bool(told["error"])) == (status, True)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"number": 0}, 400),
        ({"number": -1}, 400),
        ({"number": 1001}, 400),
        ({"number": 1 << 70}, 400),
        ({"result": "perhaps"}, 400),
        ({"executor_id": ""}, 400),
        ({"executor_id": "a\0"}, 400),
        ({"message": "x" * 70_000}, 413),
        ({"configs_meta": {**CONFIGS, "workspace": "x" * (1 << 20)}}, 413),
    ],
)
async def test_an_attempt_that_cannot_be_kept_is_refused(
    wire: Wire, things: Things, change: Any, status: int
) -> None:
    body = {"bake_id": things.bake, "number": 2, "result": "failed", "configs_meta": CONFIGS}

    for method, path in (("POST", "attempts"), ("PUT", "attempts/replace")):
        answer, told = await wire.call(method, path, {**body, **change})
        assert (answer, bool(told["error"])) == (status, True)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"yaml_id": ""}, 400),
        ({"yaml_id": "a\0"}, 400),
        ({"yaml_id": TOO_LONG_ID}, 400),
        ({"raw_id": TOO_LONG}, 400),
        ({"raw_id": "a\0"}, 400),
        ({"outputs": {"a": "é" * (2 << 20) + "x"}, "state": {}}, 413),
        ({"outputs": {"a": "x" * (2 << 20)}, "state": {"b": "x" * (2 << 20)}}, 413),
        ({"statuses": [{"created_at": "2026-11-21T00:00:00Z", "status": "running"}] * 1001}, 400),
        ({"statuses": [{"created_at": "2026-11-21T00:00:00Z", "status": "lost"}]}, 400),
        ({"message": "x" * 70_000}, 413),
    ],
)
async def test_a_task_that_cannot_be_kept_is_refused(
    wire: Wire, things: Things, change: Any, status: int
) -> None:
    attempt = (await wire.lines(things.lists[1]))[0]["id"]
    body = {"attempt_id": attempt, "yaml_id": "new", "statuses": [], **change}

    for method, path, sent in (
        ("POST", "tasks", body),
        ("PUT", "tasks/replace", body),
        ("PUT", "tasks/batch", [body]),
    ):
        answer, told = await wire.call(method, path, sent)
        assert (answer, bool(told["error"])) == (status, True), path


async def test_outputs_of_four_mebibytes_are_kept(
    client: Client, wire: Wire, things: Things
) -> None:
    attempt = (await wire.lines(things.lists[1]))[0]["id"]
    outputs = {"éx": "x" * ((4 << 20) - 3)}

    await client.bakes.put_tasks(
        [TaskRequest(attempt_id=attempt, yaml_id="big", outputs=outputs, state={})]
    )

    kept = {task.yaml_id: task.outputs for task in await client.bakes.tasks(attempt)}
    assert kept["big"] == outputs


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("cache_entries", {"batch": ""}),
        ("cache_entries", {"task_id": ""}),
        ("cache_entries", {"key": TOO_LONG}),
        ("cache_entries", {"key": "a\0"}),
        ("cache_entries", {"raw_id": "a\0"}),
        ("cache_entries", {"outputs": {"a": "x" * (5 << 20)}}),
        ("bake_images", {"ref": ""}),
        ("bake_images", {"ref": TOO_LONG_ID}),
        ("bake_images", {"yaml_defs": []}),
        ("bake_images", {"yaml_defs": [""]}),
        ("bake_images", {"context_on_storage": "a\0"}),
        ("bake_images", {"builder_job_id": ""}),
        ("bake_images", {"status": "lost"}),
        ("config_files", {"filename": ""}),
        ("config_files", {"filename": "a\0"}),
        ("config_files", {"filename": "x" * 4097}),
    ],
)
async def test_other_things_that_cannot_be_kept_are_refused(
    wire: Wire, things: Things, path: str, change: Any
) -> None:
    body = next(body for _, route, body in things.writes if route == path)

    answer, told = await wire.call("POST", path, {**body, **change})

    assert (answer in (400, 413), bool(told["error"])) == (True, True)


async def test_half_a_character_is_refused(server: ServerProcess, things: Things) -> None:
    # JSON can write half of a surrogate pair, which no database keeps.
    body = b'{"project_id": "%s", "batch": "b", "graphs": {}, "name": "\\ud800"}'
    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(
            server.url + "/flow/bakes", data=body % things.project.id.encode()
        ) as response,
    ):
        assert response.status == 400
