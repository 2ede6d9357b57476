"""Bakes on a real platform."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.dockerfile.tree import DockerfileError
from neuro.domain.bakes import AttemptRequest, ImageStatus, TaskStatus
from neuro.domain.errors import Conflict, InvalidInput
from neuro.domain.jobs import JobStatus
from neuro.domain.permissions import Action
from neuro.flow.batch.effects import time_now
from neuro.flow.batch.forecast import Future, forecast
from neuro.flow.batch.local import local_phase
from neuro.flow.batch.plan import PlannedImage
from neuro.flow.batch.submit import restart, submit
from neuro.flow.expressions.values import URI
from tests.flow.batch.bakery import Bakery
from tests.server import jobs
from tests.server_process import ServerProcess, running_server

_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("bakes") / "data") as running:
        yield running


@pytest.fixture
async def bakery(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Bakery]:
    # Names of their own: the projects of all tests are on one server.
    async with Bakery.at(server, tmp_path / f"ws{next(_numbers)}") as made:
        yield made


def task(id: str, *lines: str) -> str:
    return "\n".join([f"- id: {id}", "  image: ubuntu", *(f"  {line}" for line in lines), ""])


def batch(*tasks: str, head: str = "") -> str:
    return f"kind: batch\n{head}tasks:\n{''.join(tasks)}"


NOT_CACHED = "defaults:\n  cache:\n    strategy: none\n"
HANGS = "cmd: sleep 1000"


async def cancel(bakery: Bakery, attempt_id: str) -> None:
    attempt = await bakery.client.bakes.get_attempt(attempt_id)
    await bakery.client.bakes.replace_attempt(
        AttemptRequest(
            bake_id=attempt.bake_id,
            number=attempt.number,
            result=TaskStatus.CANCELLED,
            configs_meta=attempt.configs_meta,
            executor_id=attempt.executor_id,
        )
    )


async def test_chain_with_outputs(bakery: Bakery) -> None:
    text = batch(
        task("a", 'bash: echo hello; echo "::set-output name=x::17"'),
        task(
            "b",
            "env:",
            "  GOT: ${{ needs.a.outputs.x }}",
            'bash: echo "::set-output name=y::$GOT$GOT"',
        ),
        task("c", 'bash: test "${{ needs.b.outputs.y }}" = 1717'),
    )
    tasks = await bakery.bake(text)
    assert {id: task.status.value for id, task in tasks.items()} == dict.fromkeys(
        "abc", "succeeded"
    )
    assert tasks["b"].outputs == {"y": "1717"}
    job = await bakery.client.jobs.get(tasks["a"].raw_id or "")
    assert (
        f"bake_id:{(await bakery.client.bakes.get_attempt(tasks['a'].attempt_id)).bake_id}"
        in job.tags
    )
    pending, running, succeeded = tasks["a"].statuses
    assert pending.created_at == job.history.created_at
    assert running.created_at == job.history.started_at
    assert succeeded.created_at == job.history.finished_at


async def test_matrix_and_json_outputs(bakery: Bakery) -> None:
    text = batch(
        task("list", """bash: echo '::set-output name=names::["x", "y"]'"""),
        task(
            "train",
            "strategy:",
            "  matrix:",
            "    k: ${{ from_json(needs.list.outputs.names) }}",
            'bash: echo "::set-output name=k::${{ matrix.k }}!"',
        ),
        task("end", "needs: [train]", "env:", "  ALL: ${{ to_json(needs.train.outputs) }}",
             'bash: echo "::set-output name=all::$ALL"'),
    )  # fmt: skip
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    tasks = await bakery.tasks(attempt)
    assert sorted(tasks) == ["end", "list", "train-k-x", "train-k-y"]
    assert tasks["end"].outputs == {"all": '{"k": ["x!", "y!"]}'}
    graph = (await bakery.client.bakes.get(bake.id)).graphs[""]
    assert sorted(graph["end"]) == ["train-k-x", "train-k-y"]


async def test_cache(bakery: Bakery) -> None:
    text = batch(
        task("a", 'bash: echo "::set-output name=x::1"'),
        task("b", "cmd: echo ${{ needs.a.outputs.x }}"),
    )
    first = await bakery.bake(text)
    again = await bakery.bake(text)
    assert {id: task.status.value for id, task in again.items()} == {"a": "cached", "b": "cached"}
    assert again["a"].outputs == {"x": "1"}
    assert again["a"].raw_id == first["a"].raw_id
    other = await bakery.bake(text.replace("x::1", "x::2"))
    assert {task.status.value for task in other.values()} == {"succeeded"}


async def test_retry_and_its_number(bakery: Bakery) -> None:
    text = batch(
        task("a", "retry:", "  attempts: 3", "  delay: 0.05", *bakery_flag(bakery)),
        head=NOT_CACHED,
    )
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    record = (await bakery.tasks(attempt))["a"]
    assert [step.status.value for step in record.statuses] == ["pending", "running"] * 3 + [
        "succeeded"
    ]
    assert len(await bakery.jobs(bake)) == 3


def bakery_flag(bakery: Bakery) -> list[str]:
    """A command that succeeds the third time."""
    return [
        f"volumes: [storage:{bakery.folder.name}:/gate:rw]",
        "bash: echo >> /gate/tries; test $(wc -l < /gate/tries) -ge 3",
    ]


async def test_timeout(bakery: Bakery) -> None:
    text = batch(task("a", HANGS, "timeout: 0.2"), task("b"))
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.FAILED
    tasks = await bakery.tasks(attempt)
    assert tasks["a"].message == "timed out after 0.2s"
    assert tasks["b"].status is TaskStatus.SKIPPED
    made = await bakery.client.bakes.get_attempt(attempt.id)
    assert made.message == "Task a failed: timed out after 0.2s"


async def test_cancel(bakery: Bakery) -> None:
    text = batch(
        task("a", HANGS),
        task("b"),
        task("clean", "needs: [a]", "enable: ${{ always() }}", "cmd: echo clean"),
    )
    bake, attempt = await bakery.submit(text)
    driven = asyncio.create_task(bakery.drive(bake))
    await bakery.until(bake, lambda statuses: statuses.get("a") == "running")
    await cancel(bakery, attempt.id)
    assert await driven is TaskStatus.CANCELLED
    tasks = await bakery.tasks(attempt)
    assert {id: task.status.value for id, task in tasks.items()} == {
        "a": "cancelled",
        "b": "skipped",
        "clean": "succeeded",
    }


async def test_cancel_before_it_begins(bakery: Bakery) -> None:
    bake, attempt = await bakery.submit(batch(task("a")))
    await cancel(bakery, attempt.id)
    assert await bakery.drive(bake) is TaskStatus.CANCELLED
    assert await bakery.tasks(attempt) == {}


async def test_a_failure_ends_the_others(bakery: Bakery) -> None:
    text = batch(
        task("bad", "needs: []", "bash: exit 3"),
        task("long", "needs: []", HANGS),
        task("end", "needs: [bad, long]"),
        task("clean", "needs: [long]", "enable: ${{ always() }}", "cmd: echo clean"),
        head=NOT_CACHED,
    )
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.FAILED
    tasks = await bakery.tasks(attempt)
    assert tasks["bad"].message == "exit code 3"
    assert tasks["long"].status in (TaskStatus.CANCELLED, TaskStatus.SKIPPED)
    assert tasks["end"].status is TaskStatus.SKIPPED
    assert tasks["clean"].status is TaskStatus.SUCCEEDED


async def test_state_of_a_stateful_action(bakery: Bakery) -> None:
    action = """
kind: stateful
main:
  image: ubuntu
  bash: echo "::save-state name=path::/tmp/it"
post:
  image: ubuntu
  bash: echo "::set-output name=removed::${{ state.path }}"
"""
    text = batch("- id: it\n  action: ws:it.yml\n", task("bad", "bash: exit 1"))
    bake, attempt = await bakery.submit(text, files={"it.yml": action})
    assert await bakery.drive(bake) is TaskStatus.FAILED
    tasks = await bakery.tasks(attempt)
    assert tasks["post-it"].outputs == {"removed": "/tmp/it"}


async def test_too_large_an_output_fails_its_task(bakery: Bakery) -> None:
    head = "head -c 1100000 /dev/zero | tr '\\\\0' x"
    text = batch(task("a", f"bash: printf '::set-output name=big::'; {head}; echo"), task("b"))
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.FAILED
    assert "larger than 1 MiB" in ((await bakery.tasks(attempt))["a"].message or "")


async def test_refused_task(bakery: Bakery) -> None:
    text = batch(task("a", "preset: none-such"), task("b", "enable: ${{ always() }}", "cmd: echo"))
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.FAILED
    tasks = await bakery.tasks(attempt)
    assert "none-such" in (tasks["a"].message or "")
    assert tasks["b"].status is TaskStatus.SUCCEEDED


async def test_killed_from_outside(bakery: Bakery) -> None:
    bake, attempt = await bakery.submit(batch(task("a", HANGS), task("b")))
    driven = asyncio.create_task(bakery.drive(bake))
    await bakery.until(bake, lambda statuses: statuses.get("a") == "running")
    (job,) = await bakery.jobs(bake)
    await bakery.client.jobs.kill(job)
    assert await driven is TaskStatus.CANCELLED
    assert (await bakery.tasks(attempt))["b"].status is TaskStatus.SKIPPED


async def test_executor_that_is_killed(bakery: Bakery) -> None:
    text = batch(
        task("a", 'bash: echo "::set-output name=x::1"'),
        f"- id: b\n  image: ubuntu\n{bakery.waits('b')}\n",
        task("c", 'bash: test "${{ needs.b.result }}" = succeeded'),
        head=NOT_CACHED,
    )
    bake, attempt = await bakery.submit(text)
    for _ in range(2):
        process = bakery.in_process(bake)
        await bakery.until(bake, lambda statuses: statuses.get("b") == "running")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    bakery.open_gate("b")
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    tasks = await bakery.tasks(attempt)
    assert {task.status.value for task in tasks.values()} == {"succeeded"}
    assert tasks["a"].outputs == {"x": "1"}
    assert len(await bakery.jobs(bake)) == 3


async def test_executor_that_is_killed_at_any_moment(bakery: Bakery) -> None:
    """Every try is one job, wherever the executors die."""
    text = batch(
        *[task(f"t{number}", "cmd: echo ::set-output name=n::1") for number in range(6)],
        head=NOT_CACHED,
    )
    bake, attempt = await bakery.submit(text)
    for seen in range(1, 6):
        process = bakery.in_process(bake)
        await bakery.until(bake, lambda statuses, seen=seen: len(statuses) >= seen)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    tasks = await bakery.tasks(attempt)
    assert {task.status.value for task in tasks.values()} == {"succeeded"}
    assert len(await bakery.jobs(bake)) == 6


async def test_two_executors_at_once(bakery: Bakery) -> None:
    text = batch(*[task(f"t{number}", "needs: []", "cmd: echo") for number in range(5)])
    bake, attempt = await bakery.submit(text)
    results = await asyncio.gather(*[bakery.drive(bake) for _ in range(3)])
    assert set(results) == {TaskStatus.SUCCEEDED}
    assert len(await bakery.jobs(bake)) == 5
    assert len(await bakery.tasks(attempt)) == 5


async def test_taken_over_by_a_main_job(bakery: Bakery) -> None:
    bake, attempt = await bakery.submit(batch(task("a", HANGS)))
    driven = asyncio.create_task(bakery.drive(bake))
    await bakery.until(bake, lambda statuses: statuses.get("a") == "running")
    main = await bakery.client.bakes.start_executor(attempt.id)
    assert await driven is TaskStatus.RUNNING
    (job,) = await bakery.jobs(bake)
    assert (await bakery.client.jobs.get(job)).status.value == "running"
    # From then on it is the main job that hears of a cancellation.
    await cancel(bakery, attempt.id)
    async for _ in bakery.client.jobs.logs(main.id):
        pass
    assert (await bakery.tasks(attempt))["a"].status is TaskStatus.CANCELLED
    assert await bakery.jobs(bake) == [job]


async def test_left_to_the_main_job(bakery: Bakery) -> None:
    bake, attempt = await bakery.submit(batch(task("a")))
    job = await bakery.client.bakes.start_executor(attempt.id)
    await bakery.drive(bake)
    assert bakery.lines[-1] in (
        f"Job {job.id} drives the bake: nothing to do here.",
        "Attempt #1 has succeeded already.",
    )
    async for _ in bakery.client.jobs.logs(job.id):
        pass
    assert await bakery.result(attempt) is TaskStatus.SUCCEEDED
    assert len(await bakery.jobs(bake)) == 1


async def test_restart_keeps_what_succeeded(bakery: Bakery) -> None:
    action = (
        "kind: batch\ntasks:\n"
        + task("i", "cmd: echo")
        + (
            f"- id: j\n  image: ubuntu\n  volumes: [storage:{bakery.folder.name}:/gate:ro]\n"
            "  bash: test -e /gate/fixed\n"
        )
    )
    text = batch(
        task("a", 'bash: echo "::set-output name=x::1"'),
        task("b", "cmd: echo"),
        "- id: call\n  action: ws:call.yml\n",
        task("c", "cmd: echo"),
        head=NOT_CACHED,
    )
    bake, first = await bakery.submit(text, files={"call.yml": action}, name="again")
    assert await bakery.drive(bake) is TaskStatus.FAILED
    with pytest.raises(Conflict):
        await asyncio.gather(*[restart(bakery.client, bake, -1, True) for _ in range(3)])
    second = await bakery.client.bakes.attempt(bake.id)
    assert second is not None
    assert second.number == 2
    bakery.open_gate("fixed")
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    before, after = await bakery.tasks(first), await bakery.tasks(second)
    for id in ("a", "b", "call.i"):
        assert after[id].raw_id == before[id].raw_id
    assert after["call.j"].raw_id != before["call.j"].raw_id
    assert after["call"].status is TaskStatus.SUCCEEDED
    with pytest.raises(InvalidInput, match="nothing is left"):
        await restart(bakery.client, bake, -1, True)
    third = await restart(bakery.client, bake, -1, False)
    assert await bakery.tasks(third) == {}
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED


async def test_restarts_at_once(bakery: Bakery) -> None:
    bake, _ = await bakery.submit(batch(task("a", "bash: exit 1")))
    await bakery.drive(bake)
    results = await asyncio.gather(
        *[restart(bakery.client, bake, -1, True) for _ in range(4)], return_exceptions=True
    )
    lost = [str(result) for result in results if isinstance(result, Conflict)]
    assert len(lost) == 3
    assert all("Attempt #2" in message for message in lost)


async def test_name_of_a_running_bake(bakery: Bakery) -> None:
    plan = bakery.plan(batch(task("a")))
    await submit(bakery.client, plan, name="one", tags=[])
    with pytest.raises(Conflict, match="one"):
        await submit(bakery.client, plan, name="one", tags=[])


async def test_submission_that_fails_frees_its_name(bakery: Bakery) -> None:
    plan = bakery.plan(batch(task("a")))
    image = PlannedImage("image:x", URI("storage:nowhere"), "Dockerfile", (), False)
    broken = replace(plan, images=(image,))
    with pytest.raises(InvalidInput):
        await submit(bakery.client, broken, name="mine", tags=[])
    bake, attempt = await submit(bakery.client, plan, name="mine", tags=[])
    assert (bake.name, attempt.result) == ("mine", TaskStatus.PENDING)


LOCAL = """
kind: local
inputs:
  code: {type: int, default: 0}
bash: |
  pwd >&2
  echo "::set-output name=where::$(basename $(pwd))"
  exit ${{ inputs.code }}
"""


async def test_what_always_runs_may_be_answered_by_an_earlier_bake(bakery: Bakery) -> None:
    text = batch(task("a"), task("b", "enable: always()", "cache: {strategy: inherit}"))
    bake, _ = await bakery.submit(text)
    plan = bakery.plan(text)
    known = await forecast(bakery.client, plan, bake.project_id, time_now())
    assert [known[name].future for name in "ab"] == [Future.RUNS, Future.OPEN]
    plan = bakery.plan(text.replace("inherit", "none"))
    known = await forecast(bakery.client, plan, bake.project_id, time_now())
    assert [known[name].future for name in "ab"] == [Future.RUNS, Future.RUNS]


async def test_local_actions(bakery: Bakery) -> None:
    text = batch(
        "- id: here\n  action: ws:local.yml\n",
        task("there", 'bash: test "${{ needs.here.outputs.where }}" = ' + bakery.folder.name),
    )
    plan = bakery.plan(text, {"local.yml": LOCAL})
    bake, attempt = await submit(bakery.client, plan, name=None, tags=[])
    lines: list[str] = []
    assert await local_phase(bakery.client, plan.workflow, bake, attempt, lines.append) is None
    assert str(bakery.folder) in lines
    assert lines[-1] == "Local action here has succeeded"
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    tasks = await bakery.tasks(attempt)
    assert [step.status.value for step in tasks["here"].statuses] == ["pending", "succeeded"]
    assert tasks["there"].status is TaskStatus.SUCCEEDED


async def test_failing_local_action(bakery: Bakery) -> None:
    text = batch("- id: here\n  action: ws:local.yml\n  args:\n    code: 3\n", task("there"))
    plan = bakery.plan(text, {"local.yml": LOCAL})
    bake, attempt = await submit(bakery.client, plan, name=None, tags=[])
    result = await local_phase(bakery.client, None, bake, attempt, bakery.lines.append)
    assert result is TaskStatus.FAILED
    assert bakery.lines[-1] == "Local action here has failed: exit code 3"
    assert await bakery.result(attempt) is TaskStatus.FAILED
    assert (await bakery.tasks(attempt))["here"].message == "exit code 3"


async def test_local_action_that_is_cancelled(bakery: Bakery) -> None:
    action = "kind: local\nbash: |\n  sleep 1000 &\n  echo it is $!\n  wait\n"
    plan = bakery.plan(batch("- id: here\n  action: ws:l.yml\n"), {"l.yml": action})
    bake, attempt = await submit(bakery.client, plan, name=None, tags=[])
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def log(text: str) -> None:
        if found := re.search(r"^it is (\d+)$", text, re.MULTILINE):
            started.set_result(os.pidfd_open(int(found[1])))

    runs = asyncio.create_task(local_phase(bakery.client, plan.workflow, bake, attempt, log))
    process = await started
    await cancel(bakery, attempt.id)
    assert await runs is TaskStatus.CANCELLED
    assert (await bakery.tasks(attempt))["here"].status is TaskStatus.CANCELLED
    # What the command had started ends as well.
    assert await asyncio.to_thread(select.select, [process], [], [], 30) == ([process], [], [])
    os.close(process)


async def test_local_action_is_not_run_by_an_executor(bakery: Bakery) -> None:
    bake, attempt = await bakery.submit(
        batch("- id: here\n  action: ws:local.yml\n"), files={"local.yml": LOCAL}
    )
    assert await bakery.drive(bake) is TaskStatus.FAILED
    assert "machine that submits" in ((await bakery.tasks(attempt))["here"].message or "")


async def test_server_that_is_killed(tmp_path: Path) -> None:
    """The executor waits for the server, and loses nothing; the jobs that ran go on or again."""
    with running_server(tmp_path / "data") as server:
        async with Bakery.at(server, tmp_path / "ws") as bakery:
            text = batch(
                task("a", 'bash: echo "::set-output name=x::1"'),
                f"- id: b\n  image: ubuntu\n{bakery.waits('b')}\n",
                task("c", "cmd: echo ${{ needs.a.outputs }}", "needs: [a, b]"),
                head=NOT_CACHED,
            )
            bake, attempt = await bakery.submit(text)
            driven = asyncio.create_task(bakery.drive(bake))
            await bakery.until(bake, lambda statuses: statuses.get("b") == "running")
            server.kill()
            await asyncio.to_thread(server.start)
            bakery.open_gate("b")
            assert await driven is TaskStatus.SUCCEEDED
            tasks = await bakery.tasks(attempt)
            assert {task.status.value for task in tasks.values()} == {"succeeded"}
            assert len(await bakery.jobs(bake)) == 3
            assert "The server answers again." in bakery.lines


async def test_a_job_of_somebody_else_with_the_tags_of_a_bake(
    server: ServerProcess, bakery: Bakery, tmp_path: Path
) -> None:
    """Whoever shows us a job cannot end our bake with it."""
    await bakery.client.users.add("alice")
    (tmp_path / "hers" / ".neuro").mkdir(parents=True)

    token = (await bakery.client.users.create_token("alice")).token

    async def as_alice() -> Client:
        client = Client.connect(server.url, token)
        client.user = "alice"
        return client

    async with await as_alice() as client:
        text = batch(task("a", "cmd: 'true'"), head=NOT_CACHED)
        bake, _ = await Bakery(client, server, tmp_path / "hers", token).submit(text)
    tags = [f"bake_id:{bake.id}", "attempt:1"]
    other = await jobs.submit(bakery.client, "sleep 1000", tags=tags)
    shown = f"job://default/{server.user}/{other.id}"
    await bakery.client.permissions.share(shown, "alice", Action.READ)

    async with await as_alice() as client:
        hers = Bakery(client, server, tmp_path / "hers")
        assert await hers.drive(bake) is TaskStatus.SUCCEEDED

    assert [line for line in hers.lines if "could not be ended" in line]
    assert not (await bakery.client.jobs.get(other.id)).status.is_finished
    await bakery.client.jobs.kill(other.id)


async def test_bakes_of_a_group_run_one_after_the_other(bakery: Bakery) -> None:
    text = batch(f"- id: a\n  image: ubuntu\n{bakery.waits('a')}\n", head="concurrency: gpu\n")
    plan = bakery.plan(text)
    bakes = [await submit(bakery.client, plan, name=None, tags=[]) for _ in range(2)]
    (first, _), (second, waits) = bakes
    runs = [asyncio.create_task(bakery.drive(bake)) for bake in (first, second)]
    await bakery.until(first, lambda statuses: statuses.get("a") == "running")
    assert await bakery.result(waits) is TaskStatus.PENDING
    assert await bakery.tasks(waits) == {}
    bakery.open_gate("a")
    assert await runs[0] is TaskStatus.SUCCEEDED
    assert await runs[1] is TaskStatus.SUCCEEDED
    assert f"Waiting for {first.id} to end." in bakery.lines


async def test_main_job(bakery: Bakery) -> None:
    """The server starts the executor as a job of its own."""
    text = batch(
        task("a", 'bash: echo "::set-output name=x::1"'),
        f"- id: b\n  image: ubuntu\n{bakery.waits('b')}\n",
        head=NOT_CACHED,
    )
    bake, attempt = await bakery.submit(text)
    job = await bakery.client.bakes.start_executor(attempt.id)
    await bakery.until(bake, lambda statuses: statuses.get("b") == "running")
    assert (await bakery.client.bakes.get_attempt(attempt.id)).executor_id == job.id
    bakery.open_gate("b")
    while not (await bakery.result(attempt)).is_finished:
        async for _ in bakery.client.jobs.logs(job.id):
            pass
    assert await bakery.result(attempt) is TaskStatus.SUCCEEDED
    assert (await bakery.tasks(attempt))["a"].outputs == {"x": "1"}


async def test_cancel_while_others_are_ahead(bakery: Bakery) -> None:
    text = batch(task("a", HANGS), head="concurrency: gpu\n")
    (first, one), (second, two) = [await bakery.submit(text) for _ in range(2)]
    runs = [asyncio.create_task(bakery.drive(bake)) for bake in (first, second)]
    await bakery.until(first, lambda statuses: statuses.get("a") == "running")
    await cancel(bakery, two.id)
    assert await runs[1] is TaskStatus.CANCELLED
    assert await bakery.tasks(two) == {}
    await cancel(bakery, one.id)
    assert await runs[0] is TaskStatus.CANCELLED


OWN_IMAGE = """
images:
  own:
    ref: image:NAME:v1
    context: ctx
    dockerfile: ctx/Dockerfile
    build_args: [SAID=hello]
"""


def of_own_image(bakery: Bakery, dockerfile: str, *names: str) -> str:
    """A batch whose tasks run an image that is built of this Dockerfile."""
    (bakery.folder / "ctx").mkdir(exist_ok=True)
    (bakery.folder / "ctx" / "Dockerfile").write_text(dockerfile)
    head = NOT_CACHED + OWN_IMAGE.replace("NAME", bakery.folder.name)
    tasks = "".join(task(name, "cmd: echo", "needs: []") for name in names)
    return batch(tasks.replace("image: ubuntu", "image: ${{ images.own.ref }}"), head=head)


async def test_an_image_is_built_once_before_its_tasks(bakery: Bakery) -> None:
    dockerfile = "FROM host\nARG SAID\nRUN test $SAID = hello\n"
    text = of_own_image(bakery, dockerfile, "a", "b")
    bake, _ = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.SUCCEEDED
    (image,) = await bakery.client.bakes.images(bake.id)
    assert image.status is ImageStatus.BUILT
    builder = await bakery.client.jobs.get(image.builder_job_id or "")
    assert builder.status is JobStatus.SUCCEEDED
    assert len(await bakery.jobs(bake)) == 3
    again, _ = await bakery.submit(text)
    assert await bakery.drive(again) is TaskStatus.SUCCEEDED
    (image,) = await bakery.client.bakes.images(again.id)
    assert (image.status, image.builder_job_id) == (ImageStatus.CACHED, None)


async def test_tasks_of_an_image_that_cannot_be_built_fail(bakery: Bakery) -> None:
    text = of_own_image(bakery, "FROM host\nRUN exit 3\n", "a")
    bake, attempt = await bakery.submit(text)
    assert await bakery.drive(bake) is TaskStatus.FAILED
    (image,) = await bakery.client.bakes.images(bake.id)
    assert image.status is ImageStatus.BUILD_FAILED
    failed = (await bakery.tasks(attempt))["a"]
    assert f"`neuro logs {image.builder_job_id}` says why" in (failed.message or "")


async def test_a_cancelled_bake_ends_its_builds(bakery: Bakery) -> None:
    text = of_own_image(bakery, "FROM host\nRUN sleep 1000\n", "a")
    bake, attempt = await bakery.submit(text)
    driving = asyncio.create_task(bakery.drive(bake))
    async with aclosing(bakery.client.jobs.events(tags=[f"bake_id:{bake.id}"])) as events:
        async for event in events:
            if event.job is not None and event.job.status is JobStatus.RUNNING:
                builder = event.job.id
                break
    await cancel(bakery, attempt.id)
    assert await driving is TaskStatus.CANCELLED
    async for _ in bakery.client.jobs.logs(builder):
        pass
    assert (await bakery.client.jobs.get(builder)).status is JobStatus.CANCELLED


async def test_a_wrong_dockerfile_is_told_before_a_bake_is_made(bakery: Bakery) -> None:
    text = of_own_image(bakery, "FROM host\nRUNN true\n", "a")
    with pytest.raises(DockerfileError, match="line 2"):
        await bakery.submit(text, name="wrong")
    right = of_own_image(bakery, "FROM host\n", "a")
    bake, attempt = await bakery.submit(right, name="wrong")
    assert (bake.name, attempt.result) == ("wrong", TaskStatus.PENDING)
