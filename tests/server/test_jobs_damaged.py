"""A job whose record is damaged: who may see it is told so, everything else goes on without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing

import pytest

from neuro.client import Client
from neuro.domain.errors import Damaged, NoSuchJob, NotFound
from neuro.domain.jobs import Job, JobFilter
from tests.server.jobs import finished, output_of, submit
from tests.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
async def damaged(server: ServerProcess, client: Client) -> Job:
    """A job that is over, and whose record a hand has spoilt."""
    job = await finished(client, await submit(client, "true", name="spoilt"))
    await client.jobs.find("spoilt")  # which waits for its end to be in the database
    with closing(sqlite3.connect(server.data_dir / "neuro.db", timeout=30)) as database, database:
        statement = "UPDATE jobs SET transitions = 'secret' WHERE id = ?"
        assert database.execute(statement, (job.id,)).rowcount == 1
    return job


ASKED: dict[str, Callable[[Client, Job], Awaitable[object]]] = {
    "status": lambda client, job: client.jobs.get(job.id),
    "by its name": lambda client, job: client.jobs.find("spoilt"),
    "logs": output_of,
    "kill": lambda client, job: client.jobs.kill(job.id),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_who_asks_for_it_is_told(client: Client, damaged: Job, asked: str) -> None:
    with pytest.raises(Damaged, match=f"The record of job '{damaged.id}' is damaged.*backup"):
        await ASKED[asked](client, damaged)


@pytest.mark.parametrize("asked", ["status", "logs", "kill"])
async def test_strangers_are_not_told_that_it_is_there(
    alice: Client, damaged: Job, asked: str
) -> None:
    with pytest.raises((NoSuchJob, NotFound), match="no such job"):
        await ASKED[asked](alice, damaged)


async def test_lists_and_streams_go_on_without_it_and_the_log_names_it_once(
    server: ServerProcess, client: Client, damaged: Job
) -> None:
    other = await finished(client, await submit(client, "true"))

    for _ in range(3):
        found = [job.id async for job in client.jobs.list(JobFilter())]
        assert other.id in found
        assert damaged.id not in found
    told = []
    async with aclosing(client.jobs.events(ids=[damaged.id, other.id])) as events:
        async for event in events:
            if event.synced:
                break
            told.append(event.job)
    assert [job.id for job in told if job is not None] == [other.id]

    lines = [line for line in server.log().splitlines() if "damaged record" in line]
    assert len([line for line in lines if damaged.id in line]) == 1
    assert "secret" not in server.log()
