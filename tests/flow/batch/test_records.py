"""What is written of tasks, and what of it a restart takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from neuro.client.transport import ServerUnreachable
from neuro.domain.bakes import Graphs, Task, TaskRequest, TaskStatus, TaskTransition
from neuro.domain.errors import Conflict, Damaged, NotFound, PlatformError, StorageFault
from neuro.flow.batch import records as module
from neuro.flow.batch.patience import Patience
from neuro.flow.batch.records import Records
from neuro.flow.batch.submit import kept_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(id: str, *statuses: str, output: str = "") -> TaskRequest:
    return TaskRequest(
        attempt_id="attempt-1",
        yaml_id=id,
        outputs={"x": output},
        state={},
        statuses=[TaskTransition(created_at=NOW, status=TaskStatus(it)) for it in statuses],
    )


class Server:
    """Takes records; fails as it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.kept: dict[str, TaskRequest] = {}
        self.failures: list[PlatformError] = []
        self.refused: set[str] = set()

    async def put(self, requests: Sequence[TaskRequest]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        if any(request.yaml_id in self.refused for request in requests):
            raise Conflict("has ended already")
        self.batches.append([request.yaml_id for request in requests])
        self.kept |= {request.yaml_id: request for request in requests}


@asynccontextmanager
async def writing(server: Server, lines: list[str]) -> AsyncIterator[Records]:
    records = Records(server.put, Patience(lines.append), lines.append)
    task = asyncio.create_task(records.run())
    try:
        yield records
    finally:
        task.cancel()


async def test_the_newest_record_of_a_task_is_written() -> None:
    server = Server()
    async with writing(server, []) as records:
        for id in ("a", "b"):
            records.add(record(id, "pending"))
        records.add(record("a", "pending", "running"))
        await records.flush()
    assert server.batches == [["a", "b"]]
    assert server.kept["a"].statuses[-1].status is TaskStatus.RUNNING


async def test_large_batches_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TASKS", 3)
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    server = Server()
    async with writing(server, []) as records:
        for number in range(7):
            records.add(record(f"t{number}", "skipped"))
        records.add(record("big", "succeeded", output="x" * 9000))
        records.add(record("large", "succeeded", output="x" * 9000))
        await records.flush()
    assert server.batches == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"], ["big"], ["large"]]


async def test_a_server_that_is_away_or_full_is_waited_for() -> None:
    server, lines = Server(), list[str]()
    server.failures = [ServerUnreachable("Gone."), StorageFault("ENOSPC", "The disk is full.")]
    async with writing(server, lines) as records:
        await records.write(record("a", "skipped"))
    assert server.batches == [["a"]]
    assert lines == [
        "Gone. Trying again until it works.",
        "The disk is full. Trying again until it works.",
        "The server answers again.",
    ]


async def test_a_record_that_is_refused_holds_up_no_other() -> None:
    server, lines = Server(), list[str]()
    server.refused = {"b"}
    async with writing(server, lines) as records:
        for id in "abc":
            records.add(record(id, "skipped"))
        await records.flush()
    assert server.batches == [["a"], ["c"]]
    assert lines == ["The server refused the record of b: has ended already"]


@pytest.mark.parametrize(
    "error", [NotFound("The attempt is gone."), Damaged("The record of the attempt is damaged.")]
)
async def test_what_is_wrong_for_ever_ends_the_writing(error: PlatformError) -> None:
    server = Server()
    server.failures = [error]
    records = Records(server.put, Patience(str), str)
    task = asyncio.create_task(records.run())
    records.add(record("a", "skipped"))
    with pytest.raises(type(error)):
        await task


def stored(id: str, *statuses: str, raw_id: str | None = None) -> Task:
    request = record(id, *statuses)
    return Task(
        id=f"task-{id}",
        attempt_id="attempt-1",
        yaml_id=id,
        raw_id=raw_id,
        outputs={},
        state={},
        statuses=request.statuses,
    )


def kept(graphs: Graphs, *tasks: Task) -> dict[str, str]:
    found = kept_of(3, graphs, tasks)
    assert found.attempt == 3
    assert len({*found.tasks, *found.calls}) == len(found.tasks) + len(found.calls)
    statuses = {task.yaml_id: task.status.value for task in tasks}
    return {id: statuses[id] for id in found.tasks} | dict.fromkeys(found.calls, "goes on")


def test_what_succeeded_is_kept_where_its_needs_are() -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["b"], "f": ["d"]}
    found = kept(
        {"": graph},
        stored("a", "cached"),
        stored("b", "pending", "running", "succeeded"),
        stored("c", "pending", "failed"),
        stored("d", "skipped"),
        stored("e", "succeeded"),
        stored("f", "succeeded"),
    )
    assert found == {"a": "cached", "b": "succeeded", "e": "succeeded"}


def test_calls_that_are_kept_and_calls_that_go_on() -> None:
    graphs = {
        "": {"done": [], "half": ["done"], "later": ["half"], "bad": [], "after": ["bad"]},
        "done": {"done.i": [], "done.j": ["done.i"]},
        "half": {"half.i": [], "half.j": ["half.i"], "half.in": []},
        "half.in": {"half.in.k": []},
        "after": {"after.i": []},
    }
    found = kept(
        graphs,
        stored("done", "pending", "running", "succeeded"),
        stored("done.i", "succeeded"),
        stored("done.j", "skipped"),
        stored("half", "pending", "running", "failed"),
        stored("half.i", "succeeded"),
        stored("half.j", "failed"),
        stored("half.in", "pending", "cancelled"),
        stored("half.in.k", "succeeded"),
        stored("later", "skipped"),
        stored("bad", "failed"),
        stored("after", "pending", "failed"),
        stored("after.i", "succeeded"),
    )
    assert found == {
        "done": "succeeded",
        "done.i": "succeeded",
        "done.j": "skipped",
        "half": "goes on",
        "half.i": "succeeded",
        "half.in": "goes on",
        "half.in.k": "succeeded",
    }


def test_what_was_cleaned_up_is_set_up_again() -> None:
    it, post = "it-k-0.1", "post-it-k-0.1"
    graph = {it: [], "use": [it], "beside": [], post: [it, "use", "beside"]}
    tasks = [stored(it, "succeeded"), stored("use", "failed"), stored("beside", "succeeded")]
    ran = stored(post, "pending", "succeeded", raw_id="job-1")
    assert kept({"": graph}, *tasks, ran) == {"beside": "succeeded"}
    assert kept({"": graph}, *tasks) == {"beside": "succeeded", it: "succeeded"}
    # In a call, the same.
    inside = {f"c.{id}": [f"c.{need}" for need in needs] for id, needs in graph.items()}
    tasks = [stored(f"c.{task.yaml_id}", task.status) for task in tasks]
    ran = stored(f"c.{post}", "pending", "succeeded", raw_id="job-1")
    call = stored("c", "pending", "failed")
    assert kept({"": {"c": []}, "c": inside}, call, *tasks, ran) == {
        "c": "goes on",
        "c.beside": "succeeded",
    }
