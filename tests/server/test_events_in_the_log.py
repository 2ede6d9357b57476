"""The log tells what happened: jobs, sign-ins, users, tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import NotAuthenticated
from tests.server.jobs import finished, running, submit
from tests.server_process import running_server


async def test_what_people_and_jobs_do_is_told(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            job = await finished(client, await submit(client, "sh -c 'exit 3'", name="short"))
            await client.users.add("anna")
            token = await client.users.create_token("anna", label="laptop")
            async with Client.connect(server.url, token.token) as anna:
                killed = await running(anna, "sleep 600")
                await anna.jobs.kill(killed.id)
                await finished(anna, killed)
                await client.users.revoke_token("anna", token.id)
                with pytest.raises(NotAuthenticated):
                    await anna.jobs.get(job.id)
            await client.users.remove("anna")
        events = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]

    def told(event: str, **values: object) -> bool:
        return any(
            one["event"] == event
            and "level" in one
            and "timestamp" in one
            and all(one.get(key) == value for key, value in values.items())
            for one in events
        )

    assert told("job submitted", job=job.id, owner=job.owner, name="short")
    assert told("job started", job=job.id)
    assert told("job is over", job=job.id, status="failed", reason="Error", exit_code=3)
    assert told("job is to end", job=killed.id, owner="anna", reason="UserRequested")
    assert told("user added", user="anna", is_admin=False)
    assert told("token made", user="anna", label="laptop", token=token.id)
    assert told("signed in", user="anna", token=token.id)
    assert told("token revoked", user="anna", token=token.id)
    assert told("revoked token refused", user="anna")
    assert told("user removed", user="anna")
    assert str(token.token) not in server.log()
