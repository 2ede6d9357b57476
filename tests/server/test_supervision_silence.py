"""Terminals that drive bakes and fall silent: how long they are believed in.

Nothing here depends on the database, and all of it takes as long as the patience is: on one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import pytest

from neuro.client import Client
from neuro.domain.bakes import TaskRequest, TaskStatus, TaskTransition
from neuro.domain.flows import Project
from neuro.domain.jobs import JobStatus
from tests.server.bakes import ended, make_bake, task_job, write
from tests.server.jobs import finished
from tests.server_process import SETTINGS, ServerProcess, running_server

# Far more than any single request takes, on a machine that is busy with other things too.
SILENCE, START, GRACE = 4.0, 4.0, 0.5
PATIENCE = f"""
[bakes]
executor_silence = {SILENCE}
start = {START}
grace = {GRACE}
"""
# Long enough for a server that is not patient to have given up.
LONGER = 1.4
RUNNING, PENDING = TaskStatus.RUNNING, TaskStatus.PENDING
FAILED, CANCELLED = TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without patience; the tests of this module share it."""
    with running_server(tmp_path_factory.mktemp("data"), settings=SETTINGS + PATIENCE) as server:
        yield server


@pytest.fixture
async def project(client: Client) -> AsyncIterator[Project]:
    """A project of the owner's, gone after the test."""
    project = await client.flows.create_project("My_Project")
    yield project
    await client.flows.delete_project(project.id)


async def test_a_terminal_that_falls_silent_loses_the_bake(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    task = await task_job(client, bake)
    await write(client, attempt, RUNNING)
    loop = asyncio.get_running_loop()

    # An open stream is a sign of life for as long as it is open.
    async with aclosing(client.bakes.events(bake.id, executor=True)) as stream:
        await anext(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LONGER * SILENCE):
                await ended(client, bake.id)
    # So is asking for the attempt now and then, as clients that know no streams do.
    until_then = loop.time() + LONGER * SILENCE
    while loop.time() < until_then:
        assert (await client.bakes.get_attempt(attempt.id)).result is RUNNING
        await asyncio.sleep(SILENCE / 10)

    last = await ended(client, bake.id)

    assert last.result is FAILED
    assert last.message is not None
    assert last.message.startswith("Its executor, in a terminal, has been silent for ")
    assert "`neuro-flow restart`" in last.message
    assert (await finished(client, task)).status is JobStatus.CANCELLED


async def test_a_terminal_may_be_silent_while_it_runs_a_command_of_its_own(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    await write(client, attempt, RUNNING)
    task = TaskRequest(
        attempt_id=attempt.id,
        yaml_id="only",
        statuses=[TaskTransition(created_at=datetime.now(UTC), status=PENDING)],
    )
    await client.bakes.create_task(task)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LONGER * SILENCE):
            await ended(client, bake.id)
    ending = TaskTransition(created_at=datetime.now(UTC), status=TaskStatus.FAILED)
    await client.bakes.replace_task(
        msgspec.structs.replace(task, statuses=[*task.statuses, ending])
    )

    last = await ended(client, bake.id)
    assert last.message is not None
    assert "has been silent" in last.message


async def test_a_bake_that_nobody_begins_is_given_up(client: Client, project: Project) -> None:
    bake, _ = await make_bake(client, project.id)

    last = await ended(client, bake.id)

    assert last.result is FAILED
    assert last.message is not None
    assert last.message.startswith("It was not begun for ")


async def test_whoever_drives_a_cancelled_bake_ends_its_jobs(
    client: Client, project: Project
) -> None:
    bake, attempt = await make_bake(client, project.id)
    task = await task_job(client, bake)
    await write(client, attempt, RUNNING)

    async with aclosing(client.bakes.events(bake.id, executor=True)) as stream:
        await anext(stream)
        await write(client, attempt, CANCELLED)
        # Longer than the grace for those who are silent: this one is not.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LONGER * GRACE):
                await finished(client, task)

    # Gone without having done so: the server does it.
    assert (await finished(client, task)).status is JobStatus.CANCELLED
