"""The token that a job is given ends with the job, and makes nothing that does not."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.jobs import Job
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.jobs.passed_tokens import PassedTokens
from tests.server.jobs import finished, submit
from tests.server.test_tables import record
from tests.server_process import ServerProcess

SAYS = "echo $NEURO_PASSED_CONFIG"


async def with_token(client: Client, command: str, **options: object) -> tuple[Job, str]:
    """A job that runs, and its token."""
    job = await submit(client, f"sh -c '{SAYS}; {command}'", pass_config=True, **options)
    return job, await token_of(client, job)


async def token_of(client: Client, job: Job) -> str:
    """The last that a job printed."""
    printed = b""
    async for chunk in client.jobs.logs(job.id):
        printed += chunk
        if printed.endswith(b"\n"):
            break
    return str(json.loads(base64.b64decode(printed.split()[-1]))["token"])


async def status(url: str, token: str) -> int:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{url}/jobs") as response,
    ):
        await response.read()
        return response.status


async def becomes_useless(url: str, token: str) -> None:
    """Returns once the token is refused."""
    async with asyncio.timeout(20):
        while await status(url, token) != 401:
            await asyncio.sleep(0.01)


async def test_a_jobs_token_ends_with_it_and_so_does_what_was_opened_with_it(
    server: ServerProcess, client: Client
) -> None:
    job, token = await with_token(client, "sleep 1000")
    assert await status(server.url, token) == 200

    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{server.url}/jobs/events", params={"owner": "x"}) as events,
    ):
        assert events.status == 200
        await client.jobs.kill(job.id)
        await finished(client, job)
        async with asyncio.timeout(20):
            with pytest.raises(aiohttp.ClientPayloadError):
                await events.read()

    assert await status(server.url, token) == 401
    assert await status(server.url, server.token) == 200


@pytest.mark.parametrize("code", [0, 3])
async def test_a_job_that_ends_by_itself_ends_its_token(
    server: ServerProcess, client: Client, code: int
) -> None:
    job, token = await with_token(client, f"exit {code}")

    await finished(client, job)

    await becomes_useless(server.url, token)


async def test_a_job_that_restarts_keeps_a_token(server: ServerProcess, client: Client) -> None:
    job, first = await with_token(client, "exit 1", restart_policy="on-failure")

    # One run follows the other, and the token of each ends with the next.
    async with asyncio.timeout(60):
        while (token := await token_of(client, job)) == first or (
            await status(server.url, token) != 200
        ):
            await asyncio.sleep(0.01)

    assert await status(server.url, first) == 401
    await client.jobs.kill(job.id)
    await becomes_useless(server.url, token)


async def test_a_run_whose_start_is_tried_again_has_one_token(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    migrate(database)
    access = AccessService(database, b"k" * 32, "default")
    await access.add_user("alice")
    tokens = PassedTokens(database, access, lambda job_id: True, Background())
    job = record(over=False)

    assert await tokens.issue(job) == await tokens.issue(job)
    # A server that was restarted has no token left to give once more.
    another = await PassedTokens(database, access, lambda job_id: True, Background()).issue(job)

    good = [one for one in await access.tokens("alice") if one.revoked_at is None]
    assert len(good) == 1
    assert (await access.authenticate(another)).token_id == good[0].id
    database.close()


async def test_a_token_that_was_revoked_is_not_given_once_more(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    migrate(database)
    access = AccessService(database, b"k" * 32, "default")
    await access.add_user("alice")
    tokens = PassedTokens(database, access, lambda job_id: True, Background())
    job = record(over=False)
    first = await access.authenticate(await tokens.issue(job))

    await access.revoke_token("alice", first.token_id)
    second = await access.authenticate(await tokens.issue(job))

    assert second.token_id != first.token_id
    database.close()


async def test_a_jobs_token_makes_no_other_and_changes_no_user(
    server: ServerProcess, client: Client
) -> None:
    await client.users.add("nobody-special")
    own = (await client.users.tokens(client.user))[0]
    job, token = await with_token(client, "sleep 1000")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    tries: list[tuple[str, str, dict[str, object] | None]] = [
        ("POST", f"users/{client.user}/tokens", {"expires_in": 1e9}),
        ("POST", "users/nobody-special/tokens", {}),
        ("POST", "users", {"name": "mallory", "is_admin": True}),
        ("DELETE", "users/nobody-special", None),
        ("DELETE", f"users/{client.user}/tokens/{own.id}", None),
    ]

    async with aiohttp.ClientSession(headers=headers) as session:
        for method, path, body in tries:
            async with session.request(method, f"{server.url}/{path}", json=body) as response:
                assert (path, response.status) == (path, 403)
                assert job.id in (await response.text())

    names = {user.name for user in await client.users.all()}
    assert {"nobody-special", client.user} <= names
    assert "mallory" not in names
    await client.jobs.kill(job.id)


async def test_what_a_job_submits_with_its_token_is_its_owners(
    server: ServerProcess, client: Client
) -> None:
    job, token = await with_token(client, "sleep 1000")

    async with Client.connect(server.url, token) as inside:
        other = await submit(inside, "true")

    assert (await finished(client, other)).owner == client.user
    await client.jobs.kill(job.id)


async def test_the_token_of_a_job_that_another_started_ends_with_its_own_job(
    server: ServerProcess, client: Client
) -> None:
    job, token = await with_token(client, "sleep 1000")
    async with Client.connect(server.url, token) as inside:
        other, others = await with_token(inside, "sleep 1000")

    await client.jobs.kill(job.id)
    await finished(client, job)
    await becomes_useless(server.url, token)

    assert await status(server.url, others) == 200
    await client.jobs.kill(other.id)
    await finished(client, other)
    await becomes_useless(server.url, others)


async def test_the_token_of_a_job_that_ends_while_no_server_is_there_ends_too(
    own_server: ServerProcess,
) -> None:
    server = own_server
    async with Client.connect(server.url, server.token) as client:
        volume = {
            "src_storage_uri": f"storage://default/{server.user}/signs",
            "dst_path": "/signs",
            "read_only": False,
        }
        command = "until test -e /signs/go; do sleep 0.05; done"
        job, token = await with_token(client, command, volumes=[volume])
    server.kill()
    (server.data_dir / "storage" / server.user / "signs" / "go").touch()
    runs = server.data_dir / "engines" / "sandbox" / "jobs" / job.id / "runs"
    async with asyncio.timeout(20):
        while not list(runs.glob("*/exit")):
            await asyncio.sleep(0.01)
    server.start()

    assert await status(server.url, token) == 401
