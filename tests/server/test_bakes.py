"""What is kept of bakes, as the flow clients write and read it, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeChange,
    BakeFilter,
    BakeImageChange,
    BakeImageRequest,
    BakeRequest,
    CacheEntry,
    CacheEntryRequest,
    ConfigFileRequest,
    ConfigsMeta,
    ImageStatus,
    Kept,
    Task,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.errors import Conflict, NotFound
from neuro.domain.flows import Project
from tests.server.wire import Wire
from tests.server_process import ServerProcess

UUID = "00000000-0000-4000-8000-000000000000"
CONFIGS = ConfigsMeta(workspace="/ws", flow_config_id=f"config-file-{UUID}")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def project(client: Client) -> AsyncIterator[Project]:
    """A project of the owner's, gone after the test."""
    project = await client.flows.create_project("baker")
    yield project
    if await client.flows.project_by_name(project.name) is not None:
        await client.flows.delete_project(project.id)


async def baked(client: Client, project: Project, name: str | None = None, **more: Any) -> Bake:
    request = BakeRequest(
        project_id=project.id, batch="train", graphs={"": {"a": []}}, name=name, **more
    )
    return await client.bakes.create(request)


def attempt_of(
    bake: Bake, number: int = 1, result: TaskStatus = TaskStatus.PENDING, **more: Any
) -> AttemptRequest:
    return AttemptRequest(
        bake_id=bake.id, number=number, result=result, configs_meta=CONFIGS, **more
    )


def task_of(attempt: Attempt, yaml_id: str, *statuses: TaskStatus, **more: Any) -> TaskRequest:
    steps = [TaskTransition(created_at=NOON, status=status) for status in statuses]
    if any(status in (TaskStatus.SUCCEEDED, TaskStatus.CACHED) for status in statuses):
        more = {"outputs": {}, "state": {}, **more}
    return TaskRequest(attempt_id=attempt.id, yaml_id=yaml_id, statuses=steps, **more)


async def test_a_bake_of_the_flow_clients_from_its_making_to_its_end(
    wire: Wire, project: Project
) -> None:
    """The calls of a minimal bake in the order in which a flow client makes them."""
    body = {
        "project_id": project.id,
        "batch": "ok",
        "graphs": {"": {"a": [], "b": []}},
        "params": {"p": "Q"},
        "name": "myname",
        "tags": ["tg"],
        "meta": {"git_info": None},
    }
    status, bake = await wire.call("POST", "bakes", body)
    assert status == 201
    assert bake["id"].startswith("bake-")
    assert {key: bake[key] for key in body if key != "meta"} == {
        key: value for key, value in body.items() if key != "meta"
    }
    assert (bake["meta"]["git_info"], bake["last_attempt"]) == (None, None)
    assert datetime.fromisoformat(bake["created_at"]).tzinfo is not None
    assert bake["created_at"].endswith("+00:00")

    files = []
    for name in ("/ws/.neuro/ok.yml", "/ws/.neuro/loc.yml"):
        file = {"bake_id": bake["id"], "filename": name, "content": "kind: batch\n"}
        status, made = await wire.call("POST", "config_files", file)
        assert (status, made) == (201, {"id": made["id"], **file})
        assert made["id"].startswith("config-file-")
        files.append(made)

    body = {
        "bake_id": bake["id"],
        "number": 1,
        "executor_id": None,
        "result": "pending",
        "configs_meta": {
            "workspace": "/ws",
            "flow_config_id": files[0]["id"],
            "project_config_id": None,
            "action_config_ids": {"ws:loc.yml": files[1]["id"]},
        },
    }
    status, attempt = await wire.call("POST", "attempts", body)
    assert status == 201
    assert attempt["id"].startswith("attempt-")
    assert {key: attempt[key] for key in body} == body
    assert attempt["created_at"].endswith("+00:00")

    shown = {**bake, "last_attempt": attempt}
    assert await wire.call("GET", f"bakes/{bake['id']}?fetch_last_attempt=1") == (200, shown)
    assert await wire.call("GET", f"bakes/{bake['id']}") == (200, bake)
    assert await wire.lines(f"bake_images?bake_id={bake['id']}") == []
    assert await wire.call("GET", f"config_files/{files[1]['id']}") == (200, files[1])
    assert await wire.lines(f"tasks?attempt_id={attempt['id']}") == []
    assert await wire.call("GET", f"attempts/{attempt['id']}") == (200, attempt)

    running = {**body, "result": "running", "executor_id": "job-1"}
    status, changed = await wire.call("PUT", "attempts/replace", running)
    assert (status, changed) == (200, {**attempt, "result": "running", "executor_id": "job-1"})

    body = {
        "attempt_id": attempt["id"],
        "yaml_id": "b",
        "raw_id": None,
        "outputs": None,
        "state": None,
        "statuses": [{"created_at": "2026-11-21T08:25:18+00:00", "status": "pending"}],
    }
    status, task = await wire.call("POST", "tasks", body)
    assert status == 201
    assert task["id"].startswith("task-")
    assert {key: task[key] for key in body} == body
    assert await wire.call("GET", f"tasks/{task['id']}") == (200, task)
    done = {
        **body,
        "outputs": {"o": "zz"},
        "state": {},
        "statuses": [
            *body["statuses"],  # type: ignore[misc]
            {"created_at": "2026-11-21T08:25:19+00:00", "status": "succeeded"},
        ],
    }
    status, replaced = await wire.call("PUT", "tasks/replace", done)
    assert (status, replaced) == (200, {**task, **done})
    path = f"tasks/by_yaml_id?attempt_id={attempt['id']}&yaml_id=b"
    assert await wire.call("GET", path) == (200, replaced)
    assert await wire.lines(f"tasks?attempt_id={attempt['id']}") == [replaced]

    status, ended = await wire.call("PUT", "attempts/replace", {**running, "result": "succeeded"})
    assert (status, ended["result"]) == (200, "succeeded")
    query = f"project_id={project.id}&fetch_last_attempt=1"
    (listed,) = await wire.lines(f"bakes?{query}")
    finished_at = listed["finished_at"]
    assert listed == {**bake, "last_attempt": ended, "finished_at": finished_at}
    assert datetime.fromisoformat(finished_at) >= datetime.fromisoformat(bake["created_at"])
    assert await wire.call("GET", f"bakes/by_name?{query}&name=myname") == (200, listed)
    assert await wire.lines(f"attempts?bake_id={bake['id']}") == [ended]
    for number in (1, -1):
        path = f"attempts/by_number?bake_id={bake['id']}&number={number}"
        assert await wire.call("GET", path) == (200, ended)


async def test_bakes_are_listed_by_time_and_by_all_their_tags(
    client: Client, wire: Wire, project: Project
) -> None:
    tags = (["x"], ["x", "y z"], ["y z"])
    made = [
        await baked(client, project, created_at=NOON + timedelta(hours=hour), tags=tags[hour])
        for hour in range(3)
    ]

    async def shown(**query: Any) -> list[int]:
        found = await client.bakes.list(BakeFilter(project_id=project.id, **query))
        return [made.index(bake) for bake in found]

    assert await shown() == [0, 1, 2]
    assert await shown(reverse=True) == [2, 1, 0]
    assert await shown(tags=["x"]) == [0, 1]
    assert await shown(tags=["x", "y z"]) == [1]
    assert await shown(tags=["x z"]) == []
    hour = timedelta(hours=1)
    assert await shown(since=NOON + hour) == [1, 2]
    assert await shown(until=NOON + hour) == [0, 1]
    assert await shown(since=NOON + hour, until=NOON + hour) == [1]
    assert await shown(since=NOON.replace(tzinfo=None), reverse=True) == [2, 1, 0]
    status, array = await wire.call("GET", f"bakes?project_id={project.id}&tags=x&tags=y%20z")
    assert (status, [bake["id"] for bake in array]) == (200, [made[1].id])


async def test_a_list_of_several_pages_is_whole_and_in_order(
    client: Client, project: Project
) -> None:
    # Of the same moment, as bakes of a client that tells whole seconds are.
    made = [(await baked(client, project, created_at=NOON)).id for _ in range(45)]

    found = await client.bakes.list(BakeFilter(project_id=project.id))
    turned = await client.bakes.list(BakeFilter(project_id=project.id, reverse=True))

    assert [bake.id for bake in found] == made
    assert [bake.id for bake in turned] == made[::-1]


async def test_a_name_is_in_use_until_its_bake_has_ended(client: Client, project: Project) -> None:
    first = await baked(client, project, "nightly")
    with pytest.raises(Conflict, match=f"has not ended \\({first.id}\\)"):
        await baked(client, project, "nightly")
    await client.bakes.create_attempt(attempt_of(first))
    await client.bakes.replace_attempt(attempt_of(first, result=TaskStatus.FAILED))

    second = await baked(client, project, "nightly")

    newest = await client.bakes.by_name(project.id, "nightly")
    assert newest is not None
    assert newest.id == second.id
    named = await client.bakes.list(BakeFilter(project_id=project.id, name="nightly"))
    assert [bake.id for bake in named] == [first.id, second.id]
    # Another attempt of the first would run beside the second, under one name.
    with pytest.raises(Conflict, match=f"has not ended \\({second.id}\\)"):
        await client.bakes.create_attempt(attempt_of(first, 2))
    assert len(await client.bakes.attempts(first.id)) == 1
    await client.bakes.create_attempt(attempt_of(second))
    await client.bakes.replace_attempt(attempt_of(second, result=TaskStatus.SUCCEEDED))
    assert (await client.bakes.create_attempt(attempt_of(first, 2))).number == 2


async def test_a_bake_that_was_given_up_before_it_began_frees_its_name(
    client: Client, project: Project
) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    given_up = await baked(client, project, "halfway", created_at=hour_ago)

    second = await baked(client, project, "halfway")

    newest = await client.bakes.by_name(project.id, "halfway")
    assert newest is not None
    assert newest.id == second.id
    with pytest.raises(Conflict, match=second.id):
        await client.bakes.create_attempt(attempt_of(given_up))
    begun = await baked(client, project, "begun", created_at=hour_ago)
    await client.bakes.create_attempt(attempt_of(begun))
    with pytest.raises(Conflict, match=begun.id):
        await baked(client, project, "begun")


async def test_of_many_bakes_of_one_name_at_once_one_is_made(
    client: Client, wire: Wire, project: Project
) -> None:
    body = {"project_id": project.id, "batch": "b", "graphs": {}, "name": "at_once"}

    answers = await asyncio.gather(*(wire.call("POST", "bakes", body) for _ in range(8)))

    assert sorted(status for status, _ in answers) == [201] + [409] * 7
    refused = [answer for status, answer in answers if status == 409]
    assert {answer["code"] for answer in refused} == {"unique"}
    assert all("at_once" in answer["description"] for answer in refused)
    assert len(await client.bakes.list(BakeFilter(project_id=project.id))) == 1


async def test_a_final_result_of_an_attempt_stays(client: Client, project: Project) -> None:
    bake = await baked(client, project)
    made = await client.bakes.create_attempt(attempt_of(bake, executor_id="job-1"))
    running = attempt_of(bake, result=TaskStatus.RUNNING, executor_id="job-2", message="on")
    changed = await client.bakes.replace_attempt(running)
    assert (changed.result, changed.executor_id, changed.message) == ("running", "job-2", "on")
    assert changed.created_at == made.created_at

    cancelled = await client.bakes.replace_attempt(
        attempt_of(bake, result=TaskStatus.CANCELLED, executor_id="job-2")
    )
    assert cancelled.message == "on"
    for result in (TaskStatus.SUCCEEDED, TaskStatus.RUNNING, TaskStatus.FAILED):
        kept = await client.bakes.replace_attempt(attempt_of(bake, result=result))
        assert kept == cancelled
    assert await client.bakes.get_attempt(made.id) == cancelled
    assert (await client.bakes.get(bake.id)).last_attempt == cancelled


async def test_attempts_follow_each_other(client: Client, wire: Wire, project: Project) -> None:
    bake = await baked(client, project)
    assert await client.bakes.attempt(bake.id) is None
    await client.bakes.create_attempt(attempt_of(bake))
    with pytest.raises(Conflict, match="#1 of this bake exists"):
        await client.bakes.create_attempt(attempt_of(bake))
    with pytest.raises(Conflict, match="#1 of this bake has not ended"):
        await client.bakes.create_attempt(attempt_of(bake, 2))
    await client.bakes.replace_attempt(attempt_of(bake, result=TaskStatus.FAILED))

    answers = await asyncio.gather(
        *(client.bakes.create_attempt(attempt_of(bake, 2)) for _ in range(6)),
        return_exceptions=True,
    )

    (second,) = [answer for answer in answers if isinstance(answer, Attempt)]
    assert sum(isinstance(answer, Conflict) for answer in answers) == 5
    assert await client.bakes.attempt(bake.id) == second
    first = await client.bakes.attempt(bake.id, 1)
    assert first is not None
    assert await client.bakes.attempts(bake.id) == [first, second]
    for number in ("0", "3", "-2", "99999999999"):
        path = f"attempts/by_number?bake_id={bake.id}&number={number}"
        assert (await wire.call("GET", path))[0] == 404, number
    status, refused = await wire.call(
        "POST",
        "attempts",
        {
            "bake_id": bake.id,
            "number": 2,
            "result": "pending",
            "configs_meta": {"workspace": "/ws", "flow_config_id": "f"},
        },
    )
    assert (status, refused["code"]) == (409, "unique")
    assert (
        await wire.call(
            "PUT",
            "attempts/replace",
            {
                "bake_id": bake.id,
                "number": 7,
                "result": "failed",
                "configs_meta": {"workspace": "/ws", "flow_config_id": "f"},
            },
        )
    )[0] == 404


async def test_an_attempt_keeps_what_an_earlier_one_has_left(
    client: Client, project: Project
) -> None:
    bakes = client.bakes
    bake = await baked(client, project)
    first = await bakes.create_attempt(attempt_of(bake))
    running, succeeded = TaskStatus.RUNNING, TaskStatus.SUCCEEDED
    outcome: dict[str, Any] = {"outputs": {"x": "1" * 5000}, "state": {"y": "2"}}
    await bakes.put_tasks(
        [
            task_of(first, "done", running, succeeded, raw_id="job-1", message="so", **outcome),
            task_of(first, "left out", succeeded),
            task_of(first, "call", running, TaskStatus.FAILED, message="below it"),
            task_of(first, "call.skipped", TaskStatus.SKIPPED),
        ]
    )
    await bakes.replace_attempt(attempt_of(bake, result=TaskStatus.FAILED))
    before = {task.yaml_id: task for task in await bakes.tasks(first.id)}

    kept = Kept(attempt=1, tasks=["call.skipped", "done"], calls=["call"])
    second = await bakes.create_attempt(attempt_of(bake, 2, kept=kept))

    after = {task.yaml_id: task for task in await bakes.tasks(second.id)}
    assert sorted(after) == ["call", "call.skipped", "done"]
    assert {task.id for task in after.values()}.isdisjoint(task.id for task in before.values())
    for name in kept.tasks:
        old = before[name]
        assert after[name] == structs.replace(old, id=after[name].id, attempt_id=second.id)
    begun = TaskTransition(created_at=NOON, status=TaskStatus.PENDING)
    call = after["call"]
    assert call == Task(id=call.id, attempt_id=second.id, yaml_id="call", statuses=[begun])
    assert {task.yaml_id: task for task in await bakes.tasks(first.id)} == before
    # What goes on can be written, what has ended cannot.
    await bakes.replace_task(task_of(second, "call", running, succeeded))
    with pytest.raises(Conflict, match="'done' is succeeded already"):
        await bakes.replace_task(task_of(second, "done", running))


@pytest.mark.parametrize(
    ("kept", "status", "says"),
    [
        ({"attempt": 1, "tasks": ["done", "unknown"]}, 400, "'unknown' has not ended in attempt"),
        ({"attempt": 1, "tasks": ["done", "open"]}, 400, "'open' has not ended in attempt #1"),
        ({"attempt": 1, "tasks": ["done"], "calls": ["new"]}, 400, "'new' has not begun in"),
        ({"attempt": 1, "tasks": ["done"], "calls": ["done"]}, 400, "each task only once"),
        ({"attempt": 1, "tasks": ["done", ""]}, 400, "id of a task"),
        ({"attempt": 2, "tasks": ["done"]}, 400, "has no attempt #2 to keep"),
        ({"attempt": 3, "tasks": ["done"]}, 400, "Attempt #3 can keep only tasks of an earlier"),
        ({"attempt": -1, "tasks": ["done"]}, 400, "Attempt #3 can keep only tasks of an earlier"),
        ({"attempt": 1, "tasks": [f"t{number}" for number in range(20_001)]}, 413, "at most"),
    ],
)
async def test_an_attempt_is_made_with_all_that_it_keeps_or_not_at_all(
    client: Client, wire: Wire, project: Project, kept: Any, status: int, says: str
) -> None:
    bake = await baked(client, project, "nightly")
    first = await client.bakes.create_attempt(attempt_of(bake))
    await client.bakes.put_tasks(
        [
            task_of(first, "done", TaskStatus.SUCCEEDED),
            task_of(first, "open", TaskStatus.RUNNING),
            task_of(first, "new"),
        ]
    )
    ended = await client.bakes.replace_attempt(attempt_of(bake, result=TaskStatus.FAILED))
    body = {
        "bake_id": bake.id,
        "number": 3,
        "result": "pending",
        "configs_meta": {"workspace": "/ws", "flow_config_id": "f"},
        "kept": kept,
    }

    answer, told = await wire.call("POST", "attempts", body)

    assert (answer, says in told["error"]) == (status, True), told
    assert await client.bakes.attempts(bake.id) == [ended]
    assert len(await client.bakes.tasks(first.id)) == 3
    # Its name is free as before, so nothing of the attempt was written.
    await baked(client, project, "nightly")
    assert (await wire.call("PUT", "attempts/replace", {**body, "number": 1}))[0] == 400


async def test_an_older_attempt_says_nothing_of_its_bake(client: Client, project: Project) -> None:
    bake = await baked(client, project, "again")
    await client.bakes.create_attempt(attempt_of(bake, result=TaskStatus.FAILED))
    await client.bakes.create_attempt(attempt_of(bake, 2, TaskStatus.RUNNING))

    await client.bakes.replace_attempt(attempt_of(bake, 1, TaskStatus.SUCCEEDED))

    with pytest.raises(Conflict):
        await baked(client, project, "again")


async def test_what_has_ended_stays_as_it_is(client: Client, project: Project) -> None:
    bakes = client.bakes
    attempt = await bakes.create_attempt(attempt_of(await baked(client, project)))
    pending, running = TaskStatus.PENDING, TaskStatus.RUNNING
    made = await bakes.create_task(task_of(attempt, "t", pending))
    with pytest.raises(Conflict, match="'t' exists already"):
        await bakes.create_task(task_of(attempt, "t", pending))
    # A try that failed and is made again: its record goes on, as it is not final yet.
    again = task_of(attempt, "t", pending, running, pending, raw_id="job-2")
    assert (await bakes.replace_task(again)).id == made.id
    unshown = "no\0pe\x1b[2J\n\x9bx"
    failed = task_of(attempt, "t", pending, running, TaskStatus.FAILED, message=unshown)
    final = await bakes.replace_task(failed)
    assert (final.id, final.status, final.message) == (
        made.id,
        "failed",
        "no?pe?[2J\n?x".replace("?", "\N{REPLACEMENT CHARACTER}"),
    )

    assert await bakes.replace_task(failed) == final
    for other in (
        task_of(attempt, "t", pending),
        task_of(attempt, "t", TaskStatus.SUCCEEDED),
        task_of(attempt, "t", TaskStatus.FAILED, outputs={"a": "b"}),
    ):
        with pytest.raises(Conflict, match="is failed already"):
            await bakes.replace_task(other)
        with pytest.raises(Conflict, match="is failed already"):
            await bakes.put_tasks([task_of(attempt, "new", pending), other])
    assert await bakes.tasks(attempt.id) == [final]


@pytest.mark.parametrize("status", ["succeeded", "cached"])
@pytest.mark.parametrize("given", [{}, {"outputs": {}}, {"state": {}}])
async def test_a_success_has_outputs_and_a_state(
    client: Client, wire: Wire, project: Project, status: str, given: Any
) -> None:
    attempt = await client.bakes.create_attempt(attempt_of(await baked(client, project)))
    steps = [{"created_at": NOON.isoformat(), "status": status}]
    body = {"attempt_id": attempt.id, "yaml_id": "t", "statuses": steps, **given}

    for method, path, sent in (
        ("POST", "tasks", body),
        ("PUT", "tasks/replace", body),
        ("PUT", "tasks/batch", [body]),
    ):
        answer, told = await wire.call(method, path, sent)
        assert (answer, "outputs" in told["error"]) == (400, True)


async def test_five_thousand_tasks_are_written_in_batches_and_listed(
    client: Client, project: Project
) -> None:
    attempt = await client.bakes.create_attempt(attempt_of(await baked(client, project)))
    ids = [f"layer{number // 250:02}.t{number}" for number in range(5000)]
    await client.bakes.put_tasks([task_of(attempt, one, TaskStatus.PENDING) for one in ids])
    before = {task.yaml_id: task.id for task in await client.bakes.tasks(attempt.id)}

    await client.bakes.put_tasks(
        [
            task_of(attempt, one, TaskStatus.PENDING, TaskStatus.SUCCEEDED, outputs={"n": one})
            for one in ids
        ]
    )

    found = await client.bakes.tasks(attempt.id)
    assert [task.yaml_id for task in found] == sorted(ids)
    assert {task.yaml_id: task.id for task in found} == before
    assert all(task.outputs == {"n": task.yaml_id} for task in found)


async def test_a_batch_is_written_whole_or_not_at_all(
    client: Client, wire: Wire, project: Project
) -> None:
    attempt = await client.bakes.create_attempt(attempt_of(await baked(client, project)))

    def body(yaml_id: str, attempt_id: str = attempt.id) -> dict[str, Any]:
        return {"attempt_id": attempt_id, "yaml_id": yaml_id, "statuses": []}

    for tasks, status in (
        ([body("a"), body("a")], 400),
        ([body("a"), body("")], 400),
        ([body("a"), body("b", f"attempt-{UUID}")], 400),
        ([body("a", f"attempt-{UUID}")], 404),
        ([body(f"t{number}") for number in range(1001)], 413),
    ):
        assert (await wire.call("PUT", "tasks/batch", tasks))[0] == status
    assert await client.bakes.tasks(attempt.id) == []
    assert await wire.call("PUT", "tasks/batch", []) == (204, None)
    assert await wire.call("PUT", "tasks/batch", [body("a"), body("b")]) == (204, None)
    assert [task.yaml_id for task in await client.bakes.tasks(attempt.id)] == ["a", "b"]


async def test_graphs_can_be_written_anew(client: Client, project: Project) -> None:
    bake = await baked(client, project, "grows")
    graphs = {"": {"a": []}, "a": {f"a.{number}": ["a"] for number in range(2000)}}

    changed = await client.bakes.change(bake.id, BakeChange(graphs=graphs))

    assert changed.graphs == graphs
    assert await client.bakes.get(bake.id) == changed


async def test_a_success_is_kept_for_later_with_its_record(
    client: Client, project: Project
) -> None:
    bakes = client.bakes
    attempt = await bakes.create_attempt(attempt_of(await baked(client, project)))
    done, failed = TaskStatus.SUCCEEDED, TaskStatus.FAILED
    batch = (await bakes.get(attempt.bake_id)).batch

    async def kept(task: str, key: str) -> CacheEntry | None:
        return await bakes.cache_entry(project.id, batch, task, key)

    one = task_of(attempt, "one", done, raw_id="job-1", outputs={"a": "b"}, cache_key="k")
    await bakes.put_tasks([one, task_of(attempt, "two", failed, cache_key="k")])
    found = await kept("one", "k")
    assert found is not None
    assert (found.raw_id, found.outputs, found.state) == ("job-1", {"a": "b"}, {})
    assert await kept("two", "k") is None

    # What is not written is not kept either.
    refused = task_of(attempt, "two", done, cache_key="k")
    with pytest.raises(Conflict):
        await bakes.put_tasks([task_of(attempt, "three", done, cache_key="k"), refused])
    assert await kept("three", "k") is None
    assert await kept("two", "k") is None
    await bakes.clear_cache(project.id)
    await bakes.replace_task(one)
    assert await kept("one", "k") is None

    await bakes.create_task(task_of(attempt, "four", done, cache_key="k"))
    assert await kept("four", "k") is not None


async def test_an_outcome_is_kept_under_its_key(client: Client, project: Project) -> None:
    bakes = client.bakes

    async def keep(batch: str, task: str, key: str = "k", **more: Any) -> str:
        request = CacheEntryRequest(
            project_id=project.id, batch=batch, task_id=task, key=key, **more
        )
        return (await bakes.add_cache_entry(request)).id

    first = await keep("b1", "t.x", raw_id="job-1", outputs={"a": "1"})
    assert await keep("b1", "t.x", raw_id="job-2", outputs={"a": "2"}, created_at=NOON) == first
    found = await bakes.cache_entry(project.id, "b1", "t.x", "k")
    assert found is not None
    assert (found.id, found.raw_id, found.outputs) == (first, "job-2", {"a": "2"})
    assert found.created_at == NOON
    await keep("b1", "t.y")
    await keep("b2", "t.x")

    async def left() -> list[tuple[str, str]]:
        places = [("b1", "t.x"), ("b1", "t.y"), ("b2", "t.x")]
        return [place for place in places if await bakes.cache_entry(project.id, *place, "k")]

    assert await bakes.cache_entry(project.id, "b1", "t.x", "other") is None
    await bakes.clear_cache(project.id, "b1", "t.x")
    assert await left() == [("b1", "t.y"), ("b2", "t.x")]
    await bakes.clear_cache(project.id, "b2")
    assert await left() == [("b1", "t.y")]
    await bakes.clear_cache(project.id)
    assert await left() == []


async def test_images_of_a_bake(client: Client, wire: Wire, project: Project) -> None:
    bake = await baked(client, project)
    request = BakeImageRequest(
        bake_id=bake.id,
        ref="image:me:v1",
        yaml_defs=["train", "eval.x"],
        dockerfile_rel="Dockerfile",
    )
    made = await client.bakes.add_image(request)
    with pytest.raises(Conflict, match="exists already"):
        await client.bakes.add_image(request)
    other = await client.bakes.add_image(
        BakeImageRequest(bake_id=bake.id, ref="another", yaml_defs=["x"])
    )

    changed = await client.bakes.change_image(
        made.id, BakeImageChange(status=ImageStatus.BUILDING, builder_job_id="job-9")
    )
    kept = await client.bakes.change_image(made.id, BakeImageChange(status=ImageStatus.BUILT))

    assert (made.status, changed.status) == ("pending", "building")
    assert (kept.status, kept.builder_job_id, kept.yaml_defs) == ("built", "job-9", made.yaml_defs)
    assert await client.bakes.images(bake.id) == [other, kept]
    for path in (f"bake_images/{made.id}", f"bake_images/by_ref?bake_id={bake.id}&ref=image:me:v1"):
        assert (await wire.call("GET", path))[1]["builder_job_id"] == "job-9", path


async def test_a_flow_file_of_four_mebibytes_is_kept_and_no_larger_one(
    client: Client, wire: Wire, project: Project
) -> None:
    bake = await baked(client, project)
    content = "é\t\n" * (1 << 20)
    file = await client.bakes.add_file(
        ConfigFileRequest(bake_id=bake.id, filename="/a b/c.yml", content=content)
    )

    assert (await client.bakes.file(file.id)).content == content
    body = {"bake_id": bake.id, "filename": "x", "content": content + "x"}
    assert (await wire.call("POST", "config_files", body))[0] == 413
    body["content"] = "x" * (33 << 20)
    assert (await wire.call("POST", "config_files", body))[0] == 413


async def test_a_removed_project_takes_everything_along(client: Client, wire: Wire) -> None:
    project = await client.flows.create_project("short_lived")
    bake = await baked(client, project, "n", tags=["t"])
    attempt = await client.bakes.create_attempt(attempt_of(bake))
    task = await client.bakes.create_task(task_of(attempt, "t"))
    file = await client.bakes.add_file(ConfigFileRequest(bake_id=bake.id, filename="f", content=""))
    image = await client.bakes.add_image(
        BakeImageRequest(bake_id=bake.id, ref="r", yaml_defs=["t"])
    )
    entry = await client.bakes.add_cache_entry(
        CacheEntryRequest(project_id=project.id, batch="b", task_id="t", key="k")
    )

    await client.flows.delete_project(project.id)

    for path in (
        f"bakes/{bake.id}",
        f"attempts/{attempt.id}",
        f"tasks/{task.id}",
        f"config_files/{file.id}",
        f"bake_images/{image.id}",
        f"cache_entries/{entry.id}",
    ):
        assert (await wire.call("GET", path))[0] == 404, path
    for write in (
        client.bakes.create_attempt(attempt_of(bake, 2)),
        client.bakes.replace_attempt(attempt_of(bake)),
        client.bakes.replace_task(task_of(attempt, "t")),
        client.bakes.put_tasks([task_of(attempt, "t")]),
        baked(client, project),
    ):
        with pytest.raises(NotFound):
            await write


async def test_a_project_that_goes_while_it_is_worked_in_leaves_nothing_behind(
    client: Client,
) -> None:
    bakes = client.bakes
    for _ in range(5):
        project = await client.flows.create_project("busy")
        bake = await baked(client, project, "n")
        attempt = await bakes.create_attempt(attempt_of(bake))
        ids = [f"t{number}" for number in range(20)]
        calls: list[Any] = []
        for number in range(8):
            calls += [
                bakes.put_tasks([task_of(attempt, one, TaskStatus.PENDING) for one in ids]),
                bakes.put_tasks([task_of(attempt, one) for one in reversed(ids)]),
                bakes.create_task(task_of(attempt, f"other{number}")),
                bakes.replace_attempt(attempt_of(bake, executor_id=f"job-{number}")),
                bakes.change(bake.id, BakeChange(graphs={"": {}})),
                baked(client, project),
            ]
        calls.insert(24, client.flows.delete_project(project.id))

        results = await asyncio.gather(*calls, return_exceptions=True)

        failures = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(failure, NotFound) for failure in failures), failures
        assert await bakes.tasks(attempt.id) == []
        assert await bakes.list(BakeFilter(project_id=project.id)) == []


async def test_lists_below_what_is_unknown_are_empty(wire: Wire) -> None:
    for unknown in (UUID, "a%20b", "x" * 300):
        for path in (
            f"bakes?project_id=projects-{unknown}",
            f"attempts?bake_id=bake-{unknown}",
            f"tasks?attempt_id=attempt-{unknown}",
            f"bake_images?bake_id=bake-{unknown}",
        ):
            assert await wire.call("GET", path) == (200, []), path
            assert await wire.lines(path) == [], path


async def test_what_is_not_there_is_404(client: Client, wire: Wire, project: Project) -> None:
    bake = await baked(client, project)
    attempt = await client.bakes.create_attempt(attempt_of(bake))
    for unknown in (UUID, "a%20b"):
        for path in (
            f"bakes/bake-{unknown}",
            f"bakes/bake-{unknown}/events",
            f"bakes/{bake.id}/events?attempt=2",
            f"bakes/by_name?project_id={project.id}&name={unknown}",
            f"attempts/attempt-{unknown}",
            f"attempts/by_number?bake_id=bake-{unknown}&number=1",
            f"tasks/task-{unknown}",
            f"tasks/by_yaml_id?attempt_id={attempt.id}&yaml_id={unknown}",
            f"config_files/config-file-{unknown}",
            f"bake_images/bake-image-{unknown}",
            f"bake_images/by_ref?bake_id={bake.id}&ref={unknown}",
            f"cache_entries/cache-entry-{unknown}",
            f"cache_entries/by_key?project_id={project.id}&batch={unknown}&task_id=t&key=k",
        ):
            assert (await wire.call("GET", path))[0] == 404, path


def test_the_sdk_does_the_same_without_an_event_loop(server: ServerProcess) -> None:
    async def work() -> None:
        async with Client.blocking(server.url, server.token) as client:
            project = await client.flows.create_project("blocking")
            bake = await baked(client, project, "n", tags=["t"])
            attempt = await client.bakes.create_attempt(attempt_of(bake))
            await client.bakes.put_tasks([task_of(attempt, "t", TaskStatus.PENDING)])
            assert [task.yaml_id for task in await client.bakes.tasks(attempt.id)] == ["t"]
            (listed,) = await client.bakes.list(
                BakeFilter(project_id=project.id, tags=["t"], fetch_last_attempt=True)
            )
            assert listed == await client.bakes.get(bake.id)
            assert listed.last_attempt == attempt
            assert await client.bakes.by_name(project.id, "m") is None
            await client.flows.delete_project(project.id)

    run(work())
