"""``neuro-flow`` of its day on batch workflows, with its own executor and with this platform's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.bakes import Attempt, Bake, BakeFilter, Task
from neuro.domain.jobs import Job, JobFilter
from tests.clients.flow_client import FlowClient
from tests.clients.reference_client import ReferenceClient
from tests.server_process import ServerProcess

BATCH = """\
kind: batch
params:
  word:
    default: hello
defaults:
  preset: cpu-small
tasks:
- id: first
  image: ubuntu
  bash: |
    echo "::set-output name=said::${{ params.word }}"
- id: row_${{ matrix.letter }}
  needs: [first]
  strategy:
    matrix:
      letter: [a, b]
  image: ubuntu
  bash: |
    echo "${{ needs.first.outputs.said }} ${{ matrix.letter }}"
    echo "::set-output name=got::${{ needs.first.outputs.said }} ${{ matrix.letter }}"
- id: last
  needs: [row_a, row_b]
  image: ubuntu
  bash: |
    echo "${{ needs.row_a.outputs.got }}, ${{ needs.row_b.outputs.got }}"
"""

FAILING = """\
kind: batch
defaults:
  preset: cpu-small
  cache:
    strategy: none
tasks:
- id: good
  image: ubuntu
  cmd: "true"
- id: bad
  image: ubuntu
  cmd: "false"
- id: never
  image: ubuntu
  cmd: "true"
"""

SLEEPING = """\
kind: batch
defaults:
  preset: cpu-small
tasks:
- id: long
  image: ubuntu
  cmd: sleep 1000
"""


class Seen:
    """What the server keeps of a project's bakes."""

    def __init__(self, server: ServerProcess, project: str) -> None:
        self._server = server
        self._project = project

    def bake(self, name: str) -> Bake:
        """The newest bake of a name, with its last attempt."""
        bakes = [bake for bake in self._bakes() if bake.name == name]
        return bakes[0]

    def tasks(self, attempt: Attempt | None) -> dict[str, Task]:
        """The tasks of an attempt by id."""
        assert attempt is not None

        async def ask() -> list[Task]:
            async with Client.blocking(self._server.url, self._server.token) as client:
                return await client.bakes.tasks(attempt.id)

        return {task.yaml_id: task for task in run(ask())}

    def statuses(self, attempt: Attempt | None) -> dict[str, str]:
        """How the tasks of an attempt ended."""
        return {name: task.status.value for name, task in self.tasks(attempt).items()}

    def jobs(self, bake: Bake) -> list[Job]:
        """All jobs of a bake, its main job too."""

        async def ask() -> list[Job]:
            async with Client.blocking(self._server.url, self._server.token) as client:
                query = JobFilter(tag=[f"bake_id:{bake.id}"])
                return [job async for job in client.jobs.list(query)]

        return run(ask())

    def until_running(self, name: str, task: str) -> None:
        """Wait until a task of a bake that was just started runs."""

        async def wait() -> None:
            async with Client.connect(self._server.url, self._server.token) as client:
                async for event in client.jobs.events(tags=[f"task:{task}"]):
                    if event.job is not None and event.job.status == "running":
                        return

        asyncio.run(wait())
        assert self.bake(name).last_attempt is not None

    def _bakes(self) -> list[Bake]:
        async def ask() -> list[Bake]:
            async with Client.blocking(self._server.url, self._server.token) as client:
                project = await client.flows.project_by_name(self._project)
                assert project is not None
                query = BakeFilter(project_id=project.id, reverse=True, fetch_last_attempt=True)
                return await client.bakes.list(query)

        return run(ask())


@pytest.fixture(scope="module")
def flow(make_client: Callable[[], ReferenceClient], server: ServerProcess) -> FlowClient:
    """A workspace of the machine's owner with batches."""
    client = make_client()
    client.run("config", "login-with-token", server.token, server.url)
    flow = FlowClient(client, f"batch_{client.version.replace('.', '_')}")
    for name, text in (("good", BATCH), ("failing", FAILING), ("sleeping", SLEEPING)):
        flow.write(name, text)
    return flow


@pytest.fixture(scope="module")
def seen(flow: FlowClient, server: ServerProcess) -> Seen:
    """What the server knows of that workspace."""
    return Seen(server, flow.project)


LOCAL, MAIN_JOB = ("--local-executor",), ()


@pytest.mark.parametrize("executor", [LOCAL, MAIN_JOB], ids=["local", "main job"])
def test_a_bake_passes_outputs_on(flow: FlowClient, seen: Seen, executor: tuple[str, ...]) -> None:
    name = "with_main_job" if not executor else "in_terminal"

    # Each has a word of its own: the cache would answer otherwise.
    flow.run("bake", "good", "-n", name, "-p", "word", name, *executor)

    bake = seen.bake(name)
    assert bake.last_attempt is not None
    assert bake.last_attempt.result == "succeeded"
    assert seen.statuses(bake.last_attempt) == dict.fromkeys(
        ("first", "row_a", "row_b", "last"), "succeeded"
    )
    assert seen.tasks(bake.last_attempt)["row_b"].outputs == {"got": f"{name} b"}
    assert f"{name} a, {name} b" in flow.run("show", name, "last").out
    assert name in flow.run("bakes").out
    inspected = flow.run("inspect", name).out
    assert "SUCCEEDED" in inspected.upper()
    mains = [job for job in seen.jobs(bake) if "remote_executor" in job.tags]
    assert len(mains) == (0 if executor else 1)
    if mains:
        assert mains[0].container.image.startswith("ghcr.io/neuro-inc/neuro-flow:")
        assert bake.last_attempt.executor_id == mains[0].id


def test_what_has_succeeded_is_answered_by_the_cache_until_it_is_cleared(
    flow: FlowClient, seen: Seen
) -> None:
    def statuses(name: str) -> set[str]:
        flow.run("bake", "good", "-n", name, "-p", "word", "again", "--local-executor")
        return set(seen.statuses(seen.bake(name).last_attempt).values())

    statuses("once")
    assert statuses("twice") == {"cached"}
    flow.run("clear-cache", "good")
    assert statuses("thrice") == {"succeeded"}


def test_a_failed_bake_is_restarted_from_what_failed(flow: FlowClient, seen: Seen) -> None:
    flow.run("bake", "failing", "-n", "broken", "--local-executor", code=1)

    bake = seen.bake("broken")
    first = seen.tasks(bake.last_attempt)
    assert seen.statuses(bake.last_attempt) == {
        "good": "succeeded",
        "bad": "failed",
        "never": "skipped",
    }
    flow.run("restart", "broken", "--local-executor", code=1)
    again = seen.bake("broken").last_attempt
    assert again is not None
    assert again.number == 2
    second = seen.tasks(again)
    assert second["good"].raw_id == first["good"].raw_id
    assert second["bad"].raw_id != first["bad"].raw_id


def test_a_bake_is_cancelled_from_another_terminal(flow: FlowClient, seen: Seen) -> None:
    with flow.started("bake", "sleeping", "-n", "endless") as process:
        seen.until_running("endless", "long")

        flow.run("cancel", "endless")

        process.wait(timeout=60)
    bake = seen.bake("endless")
    assert bake.last_attempt is not None
    assert bake.last_attempt.result == "cancelled"
    assert bake.last_attempt.executor_id is not None
    assert {job.status.is_finished for job in seen.jobs(bake)} == {True}
    assert bake.last_attempt.executor_id in flow.run("bakes").out
