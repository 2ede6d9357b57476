"""Nobody takes all places of jobs that drive bakes, and nobody runs commands of theirs there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from neuro.client import Client
from neuro.domain.bakes import BakeFilter, ScheduledFile, ScheduleRequest, TaskStatus
from neuro.domain.errors import NotPermitted, TooManyRequests
from neuro.domain.images import EXECUTOR_IMAGE
from neuro.domain.jobs import Job
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.schedules.tables import schedules
from tests.server.bakes import make_bake, until, write
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import SETTINGS, ServerProcess, running_server

ONE_EACH = """
[bakes]
restart_pause = 0.01
main_jobs = 2
main_jobs_per_owner = 1
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "data", settings=SETTINGS + ONE_EACH) as server:
        yield server


async def control_job(client: Client) -> Job:
    """One that is never over: there is no such bake, so it fails and is started again."""
    command = "neuro-flow execute bake-00000000-0000-4000-8000-000000000000"
    return await submit(client, command, image=EXECUTOR_IMAGE, restart_policy="always")


async def test_one_person_leaves_room_for_others(client: Client, alice: Client) -> None:
    held = await control_job(client)

    with pytest.raises(TooManyRequests, match=f"1 bakes of '{client.user}' are driven already"):
        await control_job(client)
    await control_job(alice)
    with pytest.raises(TooManyRequests, match="2 bakes are driven already"):
        await control_job(client)
    # Jobs of other kinds are not counted.
    assert await output_of(client, await submit(client, "echo on")) == b"on\n"
    await client.jobs.kill(held.id)
    await finished(client, held)
    assert (await control_job(client)).owner == client.user


async def test_of_many_at_once_no_more_than_the_limit_get_in(client: Client) -> None:
    async def attempt() -> bool:
        try:
            await control_job(client)
        except TooManyRequests:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(20)))) == 1


@pytest.mark.slow
async def test_bakes_without_room_for_their_main_job_wait(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        project = await client.flows.create_project("waiting")
        driven, attempt = await make_bake(client, project.id)
        dead = await submit(client, "sh -c 'kill -9 $$'", tags=[f"bake_id:{driven.id}"])
        flow = ScheduledFile(role="flow", filename="/w/.neuro/train.yml", content="kind: batch")
        schedule = ScheduleRequest(
            project_id=project.id,
            batch="nightly",
            cron="0 6 * * *",
            workspace="/w",
            files=[flow],
            graphs={"": {"only": []}},
        )
        await client.bakes.put_schedule(schedule)
        held = await control_job(client)
        await write(client, attempt, TaskStatus.RUNNING, executor_id=dead.id)
        await _told_to_wait(server, attempt.id)
    server.kill()
    database = Database(sqlite_url(server.data_dir / "neuro.db"))
    due = datetime.now(UTC) - timedelta(days=1)
    database.write_now(lambda connection: connection.execute(update(schedules).values(next_at=due)))
    database.close()
    server.start()

    async with Client.connect(server.url, server.token) as client:
        found = BakeFilter(project_id=project.id)
        while len(bakes := await client.bakes.list(found)) < 2:
            await asyncio.sleep(0.05)
        (scheduled,) = (bake for bake in bakes if bake.id != driven.id)
        first = (await client.bakes.attempts(scheduled.id))[0]
        await _told_to_wait(server, first.id)
        assert not first.result.is_finished
        assert first.executor_id is None

        await client.jobs.kill(held.id)

        # One after the other: there is room for one.
        assert (await until(client, driven.id, lambda it: it.executor_id != dead.id)).executor_id
        assert (
            await until(client, scheduled.id, lambda it: it.executor_id is not None)
        ).executor_id


async def _told_to_wait(server: ServerProcess, attempt_id: str) -> None:
    """The server's log says that an attempt has to wait for room."""
    while not any(
        "a bake has to wait" in line and attempt_id in line for line in server.log().splitlines()
    ):
        await asyncio.sleep(0.05)


async def test_nothing_else_runs_where_a_bake_is_driven(client: Client) -> None:
    control = await control_job(client)
    ordinary = await running(client, "sleep 1000")

    with pytest.raises(NotPermitted, match=f"Job {control.id} drives a bake, and runs nothing"):
        async with client.jobs.exec(control.id, "true"):
            pass

    async with client.jobs.exec(ordinary.id, "true") as session:
        while await session.read() is not None:
            pass
    assert session.exit_code == 0
    async for _ in client.jobs.logs(control.id):
        break  # What it does may be read.
