"""Submissions with a key: repeated as often as one likes, they make one job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import func, select

from neuro.client import Client
from neuro.client.transport import Request
from neuro.domain.errors import Conflict, InvalidInput
from neuro.domain.jobs import Job, JobFilter, JobRequest, JobStatus
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.jobs import tables
from neuro.server.jobs.retention import Keep, Retention
from tests.server.jobs import finished
from tests.server.test_tables import record
from tests.server_process import running_server


def request_for(command: str, **options: object) -> JobRequest:
    return msgspec.convert({"image": "ubuntu", "command": command, **options}, JobRequest)


async def jobs_with(client: Client, tag: str) -> list[str]:
    return [job.id async for job in client.jobs.list(JobFilter(tag=[tag]))]


@pytest.fixture
def key() -> str:
    return f"attempt-1/build.test/{uuid4()}"


async def test_a_repeated_submission_answers_the_same_job_as_it_is_now(
    client: Client, key: str
) -> None:
    request = request_for("sh -c 'exit 3'", tags=[key])
    first = (await client.jobs.submit(request, key=key)).job
    await finished(client, first)

    again = (await client.jobs.submit(request, key=key)).job

    assert again.id == first.id
    assert (again.status, again.history.exit_code) == (JobStatus.FAILED, 3)
    assert await jobs_with(client, key) == [first.id]


async def test_a_replay_says_so(client: Client, key: str) -> None:
    call = Request(
        method="POST",
        path="/jobs",
        params=[("from_preset", "")],
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
        body=b'{"image": "ubuntu", "command": "true", "env": {"A": "1", "B": "2"}}',
    )
    other_order = msgspec.structs.replace(
        call, body=b'{"env": {"B": "2", "A": "1"}, "command": "true", "image": "ubuntu"}'
    )
    told = []
    for each in (call, other_order):
        async with client.transport.send(each) as response:
            job = msgspec.json.decode(await response.read(), type=Job)
            told.append((response.status, response.headers.get("Idempotent-Replayed"), job.id))

    assert told == [(202, None, job.id), (202, "true", job.id)]


async def test_simultaneous_submissions_make_one_job(client: Client, key: str) -> None:
    request = request_for("true", tags=[key])

    answers = await asyncio.gather(*(client.jobs.submit(request, key=key) for _ in range(20)))

    assert len({answer.job.id for answer in answers}) == 1
    assert len(await jobs_with(client, key)) == 1


async def test_a_named_job_can_be_submitted_again_while_it_runs(client: Client, key: str) -> None:
    request = request_for("sleep 1000", name=f"train-{uuid4().hex[:12]}")
    answers = await asyncio.gather(*(client.jobs.submit(request, key=key) for _ in range(5)))

    assert len({answer.job.id for answer in answers}) == 1
    await client.jobs.kill(answers[0].job.id)


async def test_another_request_under_the_same_key_is_refused(client: Client, key: str) -> None:
    first = (await client.jobs.submit(request_for("true"), key=key)).job

    with pytest.raises(Conflict, match=first.id):
        await client.jobs.submit(request_for("false"), key=key)


async def test_keys_belong_to_their_owner(client: Client, alice: Client, key: str) -> None:
    mine = (await client.jobs.submit(request_for("true"), key=key)).job
    hers = (await alice.jobs.submit(request_for("false"), key=key)).job

    assert mine.id != hers.id
    assert hers.owner == "alice"


async def test_a_refused_submission_keeps_no_key(client: Client, key: str) -> None:
    with pytest.raises(InvalidInput):
        await client.jobs.submit(request_for("true", preset_name="no-such"), key=key)

    job = (await client.jobs.submit(request_for("true"), key=key)).job

    assert job.status is JobStatus.PENDING


@pytest.mark.parametrize("bad", ["k" * 256, "tab\tinside", "é"])
async def test_keys_are_short_and_printable(client: Client, bad: str) -> None:
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        await client.jobs.submit(request_for("true"), key=bad)


async def test_a_key_outlives_the_server(tmp_path: Path, key: str) -> None:
    with running_server(tmp_path / "data") as server:
        request = request_for("sleep 1000")
        async with Client.connect(server.url, server.token) as client:
            first = (await client.jobs.submit(request, key=key)).job
        server.kill()
        server.start()
        async with Client.connect(server.url, server.token) as client:
            assert (await client.jobs.submit(request, key=key)).job.id == first.id


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


async def test_a_key_goes_with_its_job(database: Database) -> None:
    def add(connection: object) -> None:
        old = record(age=timedelta(days=30))
        sequence = tables.insert_job(connection, old)  # type: ignore[arg-type]
        tables.insert_key(connection, "alice", "key", "digest", sequence)  # type: ignore[arg-type]

    database.write_now(add)

    keep = Keep(age=timedelta(days=7), jobs=1000, log_bytes=1 << 40)
    assert await Retention(database, {}, keep).sweep() == 1

    count = select(func.count()).select_from(tables.job_keys)
    assert await database.read(lambda connection: connection.execute(count).scalar()) == 0
