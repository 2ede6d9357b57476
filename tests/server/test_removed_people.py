"""A person is removed: what they have begun ends, what they leave becomes nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from neuro.client import Client
from neuro.domain.bakes import ScheduledFile, ScheduleRequest, TaskStatus
from neuro.domain.errors import AlreadyExists, Conflict, NotAuthenticated, NotFound
from neuro.domain.jobs import JobFilter, JobStatus
from neuro.server.bakes.attempts.tables import unfinished_of_owners
from neuro.server.database.engine import Database
from tests.server.bakes import ended, make_bake, write
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import ServerProcess


@pytest.fixture
def server(own_server: ServerProcess) -> ServerProcess:
    """A server of each test's own."""
    return own_server


async def person(server: ServerProcess, client: Client, name: str) -> Client:
    await client.users.add(name)
    token = await client.users.create_token(name)
    them = Client.connect(server.url, token.token)
    them.user = name
    return them


async def test_what_they_have_begun_ends_and_what_they_leave_stays(
    server: ServerProcess, client: Client
) -> None:
    async with await person(server, client, "carol") as carol:
        runs = await running(
            carol,
            "sleep 1000",
            restart_policy="always",
            volumes=[
                {
                    "src_storage_uri": "storage://default/carol/data",
                    "dst_path": "/data",
                    "read_only": False,
                }
            ],
        )
        waits = await submit(carol, "true", preset_name="cpu-large", priority="low")
        project = await carol.flows.get_or_create_project("work")
        _, attempt = await make_bake(carol, project.id)
        await write(carol, attempt, TaskStatus.RUNNING)
        await carol.bakes.put_schedule(
            ScheduleRequest(
                project_id=project.id,
                batch="nightly",
                cron="0 5 * * *",
                workspace="/w",
                graphs={"": {"only": []}},
                files=[ScheduledFile(role="flow", filename="nightly.yml", content="kind: batch")],
            )
        )
        mine = await running(client, "sleep 1000")

        await client.users.remove("carol")

        with pytest.raises(NotAuthenticated):
            await carol.jobs.get(runs.id)
    assert (await finished(client, runs)).status is JobStatus.CANCELLED
    assert (await finished(client, waits)).status.is_finished
    last = await ended(client, attempt.bake_id)
    assert (last.result, last.message) == (TaskStatus.CANCELLED, "Its owner was removed.")
    assert await client.bakes.schedules(project.id) == []
    assert (server.data_dir / "storage" / "carol" / "data").is_dir()
    assert (await client.jobs.get(mine.id)).status is JobStatus.RUNNING
    assert (await output_of(client, runs)).startswith(b"up")


async def test_a_damaged_bake_keeps_no_other_alive(server: ServerProcess, client: Client) -> None:
    async with await person(server, client, "dora") as dora:
        project = await dora.flows.get_or_create_project("work")
        made = [(await make_bake(dora, project.id))[1] for _ in range(2)]
    database = Database(server.database_url)
    with database.engine.begin() as connection:
        first, second = unfinished_of_owners(connection, {"dora"})
        statement = "UPDATE flow_attempts SET configs = :half WHERE id = :id"
        connection.execute(text(statement), {"half": b"{", "id": first})
    database.close()

    await client.users.remove("dora")

    (other,) = [attempt for attempt in made if attempt.id == second]
    async with asyncio.timeout(10):
        assert (await ended(client, other.bake_id)).result is TaskStatus.CANCELLED


async def test_nobody_gets_the_name_of_somebody_who_was_removed(
    server: ServerProcess, client: Client
) -> None:
    async with await person(server, client, "carol") as carol:
        await finished(carol, await submit(carol, "true"))
    await client.users.remove("carol")

    with pytest.raises(AlreadyExists, match="was removed"):
        await client.users.add("carol")
    server.stop()
    server.start()

    async with Client.connect(server.url, server.token) as again:
        with pytest.raises(AlreadyExists, match="was removed"):
            await again.users.add("carol")
        with pytest.raises(NotFound):
            await again.users.get("carol")
        left = [job.owner async for job in again.jobs.list(JobFilter(owner=["carol"]))]
        assert left == ["carol"]


async def test_the_machines_own_user_stays(client: Client) -> None:
    with pytest.raises(Conflict, match="the user who runs this server"):
        await client.users.remove(client.user)

    assert (await client.users.get(client.user)).is_admin


async def test_a_server_that_was_killed_meanwhile_ends_the_rest_at_its_start(
    server: ServerProcess, client: Client
) -> None:
    async with await person(server, client, "carol") as carol:
        job = await running(carol, "sleep 1000")
    server.kill()
    database = Database(server.database_url)
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE name = 'carol'"))
        connection.execute(text("INSERT INTO retired_users VALUES ('carol', 0)"))
    database.close()

    server.start()

    async with Client.connect(server.url, server.token) as again:
        assert (await finished(again, job)).status is JobStatus.CANCELLED
