"""Who drives bakes dies, falls silent or waits for others: what the server does then."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    BakeEvent,
    BakeMeta,
    Concurrency,
    TaskRequest,
    TaskStatus,
    TaskTransition,
    new_id,
)
from neuro.domain.errors import Conflict, NotFound
from neuro.domain.flows import Project
from neuro.domain.images import EXECUTOR_IMAGE
from neuro.domain.jobs import JobFilter, JobStatus, Reason
from tests.server.bakes import ended, event_of, make_bake, task_job, until, write
from tests.server.jobs import finished, running, submit
from tests.server_process import SETTINGS, ServerProcess, running_server

PATIENCE = """
[bakes]
executor_silence = 1.5
start = 3
grace = 1
restart_pause = 0.01
restarts = 3
"""
RUNNING, PENDING = TaskStatus.RUNNING, TaskStatus.PENDING
FAILED, CANCELLED = TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server without patience; the tests of this module share it."""
    folder = tmp_path_factory.mktemp("data")
    settings = SETTINGS + PATIENCE
    if request.param == "sqlite":
        with running_server(folder, settings=settings) as server:
            yield server
        return
    with (
        request.getfixturevalue("postgres_server").database() as url,
        running_server(folder, settings=settings, database=url) as server,
    ):
        yield server


@pytest.fixture
async def project(client: Client) -> AsyncIterator[Project]:
    """A project of the owner's, gone after the test."""
    project = await client.flows.create_project("My_Project")
    yield project
    if await client.flows.project_by_name(project.name) is not None:
        await client.flows.delete_project(project.id)


async def test_a_main_job_is_submitted_once(client: Client, project: Project) -> None:
    bake, attempt = await make_bake(
        client, project.id, name="nightly", meta=BakeMeta(life_span=3600.0)
    )

    job = await client.bakes.start_executor(attempt.id)
    again = await client.bakes.start_executor(attempt.id)

    assert again.id == job.id
    assert job.container.image.startswith(EXECUTOR_IMAGE)
    assert shlex.split(job.container.command or "") == ["neuro-flow", "execute", bake.id]
    assert job.description == "Bake nightly of train"
    assert job.pass_config
    assert job.max_run_time_minutes == 120
    assert sorted(job.tags) == [
        f"bake_id:{bake.id}",
        "flow:train",
        "project:my-project",
        "remote_executor",
    ]
    executors = {each.executor_id for each in await client.bakes.attempts(bake.id)}
    tagged = [each.id async for each in client.jobs.list(JobFilter(tag=[f"bake_id:{bake.id}"]))]
    assert executors <= set(tagged)


async def test_an_attempt_that_is_over_gets_no_main_job(client: Client, project: Project) -> None:
    _, attempt = await make_bake(client, project.id)
    await write(client, attempt, CANCELLED)

    with pytest.raises(Conflict, match="is cancelled: `neuro-flow restart` makes a new one"):
        await client.bakes.start_executor(attempt.id)


async def test_only_who_may_change_a_project_starts_its_main_jobs(
    client: Client, alice: Client, project: Project
) -> None:
    _, attempt = await make_bake(client, project.id)

    with pytest.raises(NotFound):
        await alice.bakes.start_executor(attempt.id)
    with pytest.raises(NotFound):
        await client.bakes.start_executor("attempt-00000000-0000-4000-8000-000000000000")


async def test_a_main_job_that_dies_has_a_successor_until_it_is_given_up(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    dead = await submit(client, "sh -c 'kill -9 $$'", tags=[f"bake_id:{bake.id}"])
    task = await task_job(client, bake)
    await write(client, attempt, RUNNING, executor_id=dead.id)

    second = await until(client, bake.id, lambda attempt: attempt.executor_id != dead.id)

    assert second.executor_id is not None
    successor = await client.jobs.get(second.executor_id)
    assert successor.container.image.startswith(EXECUTOR_IMAGE)
    assert "remote_executor" in successor.tags
    # Nothing can be driven with that flow file, so the successors do not get on either.
    last = await ended(client, bake.id)
    assert last.result is FAILED
    assert (await finished(client, task)).status is JobStatus.CANCELLED


async def test_a_main_job_that_dies_before_it_says_that_it_is_one_has_a_successor(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)

    dead = await submit(
        client,
        f"neuro-flow --no-such-option execute {bake.id}",
        image="ghcr.io/neuro-inc/neuro-flow:22.8.1",
        tags=[f"bake_id:{bake.id}", "remote_executor"],
    )

    later = await until(client, bake.id, lambda it: it.executor_id not in (None, dead.id))
    assert later.id == attempt.id


async def test_a_main_job_that_its_user_kills_ends_the_bake(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    main = await running(client, "sleep 1000")
    task = await task_job(client, bake)
    step = TaskTransition(created_at=datetime.now(UTC), status=PENDING)
    record = TaskRequest(attempt_id=attempt.id, yaml_id="only", raw_id=task.id, statuses=[step])
    await client.bakes.create_task(record)
    other = await submit(client, "sleep 1000")
    await write(client, attempt, RUNNING, executor_id=main.id)

    await client.jobs.kill(main.id)

    last = await ended(client, bake.id)
    assert (last.result, last.executor_id) == (CANCELLED, main.id)
    assert last.message is not None
    assert "killed by its user" in last.message
    assert (await finished(client, task)).history.reason == Reason.USER_REQUESTED
    closed = await event_of(
        client, bake.id, lambda it: it.task is not None and it.task.status is CANCELLED
    )
    assert closed.task is not None
    assert closed.task.message == "It was ended with its bake, whose executor was gone."
    assert not (await client.jobs.get(other.id)).status.is_finished
    await client.jobs.kill(other.id)


async def test_nobodys_job_is_started_again_because_somebody_else_says_so(
    client: Client, alice: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    hers = await running(alice, "sleep 1000")

    kept = await write(client, attempt, RUNNING, executor_id=hers.id)

    assert kept.executor_id is None
    await alice.jobs.kill(hers.id)
    assert (await ended(client, bake.id)).executor_id is None


async def test_an_executor_that_is_no_job_of_this_server_has_to_be_heard_of(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)

    await write(client, attempt, RUNNING, executor_id="job-elsewhere")

    last = await ended(client, bake.id)
    assert (last.result, last.executor_id) == (FAILED, "job-elsewhere")
    assert last.message is not None
    assert "has been silent" in last.message


async def test_only_the_server_says_that_a_schedule_made_a_bake(
    client: Client, project: Project
) -> None:
    bake, _ = await make_bake(client, project.id, meta=BakeMeta(schedule="schedule-of-others"))

    assert bake.meta.schedule is None


async def test_jobs_of_a_later_attempt_are_not_those_of_the_one_that_ended(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    first, second = await task_job(client, bake), await task_job(client, bake)
    main = await running(client, "sleep 1000")
    await write(client, attempt, RUNNING, executor_id=main.id)
    await client.bakes.create_task(
        TaskRequest(attempt_id=attempt.id, yaml_id="only", raw_id=first.id)
    )
    await write(client, attempt, CANCELLED, executor_id=main.id)
    later = await _next_attempt(client, attempt)
    other_main = await running(client, "sleep 1000")
    await write(client, later, RUNNING, executor_id=other_main.id)

    await client.jobs.kill(main.id)

    assert (await finished(client, first)).status is JobStatus.CANCELLED
    assert not (await client.jobs.get(second.id)).status.is_finished
    await client.jobs.kill(other_main.id)
    assert (await finished(client, second)).status is JobStatus.CANCELLED


async def test_a_bake_waits_for_those_of_its_group_before_it(
    client: Client, project: Project
) -> None:
    meta = BakeMeta(concurrency=Concurrency(group="gpu"))
    first, attempt = await make_bake(client, project.id, meta=meta)
    second, _ = await make_bake(client, project.id, meta=meta)

    async with aclosing(client.bakes.events(second.id)) as stream:
        told = (event.ahead async for event in stream if event.ahead is not None)
        assert await anext(told) == [first.id]
        await write(client, attempt, TaskStatus.SUCCEEDED)
        assert await anext(told) == []

    event = await event_of(client, second.id, lambda event: event.ahead is not None)
    assert event.ahead == []


async def test_a_bake_may_cancel_those_before_it(client: Client, project: Project) -> None:
    waits = BakeMeta(concurrency=Concurrency(group="deploy"))
    cancels = BakeMeta(concurrency=Concurrency(group="deploy", cancel_running=True))
    first, _ = await make_bake(client, project.id, meta=waits)
    second, _ = await make_bake(client, project.id, meta=cancels, name="newest")
    third, _ = await make_bake(client, project.id, meta=waits)

    last = await ended(client, first.id)

    assert (last.result, last.message) == (
        CANCELLED,
        "Cancelled by newest, which came after it in the group 'deploy'.",
    )
    event = await event_of(client, second.id, lambda event: event.ahead == [])
    assert event.ahead == []
    event = await event_of(client, third.id, lambda event: event.ahead == [second.id])
    assert event.ahead == [second.id]


async def test_the_jobs_of_a_removed_project_end(client: Client, project: Project) -> None:
    bake, attempt = await make_bake(client, project.id)
    main = await running(client, "sleep 1000", tags=[f"bake_id:{bake.id}", "remote_executor"])
    task = await task_job(client, bake)
    await write(client, attempt, RUNNING, executor_id=main.id)

    await client.flows.delete_project(project.id)

    assert (await finished(client, main)).status is JobStatus.CANCELLED
    assert (await finished(client, task)).status is JobStatus.CANCELLED


async def test_what_happened_while_the_server_was_down_is_seen_to(
    server: ServerProcess, client: Client, project: Project
) -> None:
    driven, driven_attempt = await make_bake(client, project.id)
    silent, silent_attempt = await make_bake(client, project.id)
    over, over_attempt = await make_bake(client, project.id)
    main = await running(client, "sleep 0.3; exit 3")
    await write(client, driven_attempt, RUNNING, executor_id=main.id)
    await write(client, silent_attempt, RUNNING)
    left = await task_job(client, over)
    async with aclosing(client.bakes.events(over.id, executor=True)) as stream:
        await anext(stream)
        await write(client, over_attempt, CANCELLED)
        server.kill()
    # The main job ends meanwhile.
    record = server.data_dir / f"engines/sandbox/jobs/{main.id}/runs/0/exit"
    while not record.exists():
        await asyncio.sleep(0.02)
    server.start()

    async with Client.connect(server.url, server.token) as client:
        successor = await until(client, driven.id, lambda it: it.executor_id != main.id)
        assert successor.executor_id is not None
        assert (await client.jobs.get(main.id)).history.exit_code == 3
        last = await ended(client, silent.id)
        assert (last.result, last.executor_id) == (FAILED, None)
        assert (await finished(client, left)).status is JobStatus.CANCELLED
        assert (await ended(client, driven.id)).result is FAILED


def _is_cancelled(event: BakeEvent) -> bool:
    return event.task is not None and event.task.status is CANCELLED


async def _next_attempt(client: Client, attempt: Attempt) -> Attempt:
    return await client.bakes.create_attempt(
        AttemptRequest(
            bake_id=attempt.bake_id,
            number=attempt.number + 1,
            result=PENDING,
            configs_meta=attempt.configs_meta,
        )
    )


async def test_jobs_of_a_bake_that_was_removed_while_nobody_looked_end(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            of_a_bake = await running(client, "sleep 1000", tags=[f"bake_id:{new_id('bake')}"])
            of_no_bake = await running(client, "sleep 1000", tags=["bake_id:mine"])

            server.stop()
            server.start()

            assert (await finished(client, of_a_bake)).status is JobStatus.CANCELLED
            assert (await client.jobs.get(of_no_bake.id)).status is JobStatus.RUNNING
            await client.jobs.kill(of_no_bake.id)
