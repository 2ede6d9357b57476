"""A job whose record is damaged: who may see it is told so, everything else goes on without it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import Damaged, NoSuchJob, NotFound
from neuro.domain.jobs import Job, JobFilter, JobStatus
from tests.cli.platform import Home
from tests.server.jobs import finished, output_of, running, submit
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
    spoil(server, job)
    return job


def spoil(server: ServerProcess, job: Job) -> None:
    with closing(sqlite3.connect(server.data_dir / "neuro.db", timeout=30)) as database, database:
        statement = "UPDATE jobs SET transitions = 'secret' WHERE id = ?"
        assert database.execute(statement, (job.id,)).rowcount == 1


ASKED: dict[str, Callable[[Client, Job], Awaitable[object]]] = {
    "status": lambda client, job: client.jobs.get(job.id),
    "by its name": lambda client, job: client.jobs.find("spoilt"),
    "logs": output_of,
}


@pytest.mark.parametrize("asked", ASKED)
async def test_who_asks_for_it_is_told(client: Client, damaged: Job, asked: str) -> None:
    with pytest.raises(Damaged, match=f"The record of job '{damaged.id}' is damaged.*backup"):
        await ASKED[asked](client, damaged)


@pytest.mark.parametrize("asked", ["status", "logs", "kill"])
async def test_strangers_are_not_told_that_it_is_there(
    alice: Client, damaged: Job, asked: str
) -> None:
    call = ASKED.get(asked, lambda client, job: client.jobs.kill(job.id))
    with pytest.raises((NoSuchJob, NotFound), match="no such job"):
        await call(alice, damaged)


async def test_to_end_one_that_is_over_changes_nothing(client: Client, damaged: Job) -> None:
    assert await client.jobs.kill(damaged.id) == ()
    with pytest.raises(Damaged):
        await client.jobs.get(damaged.id)


async def test_lists_say_how_many_are_left_out(
    server: ServerProcess, client: Client, alice: Client, damaged: Job
) -> None:
    before: list[str] = []
    [job async for job in client.jobs.list(JobFilter(), before.append)]
    also = await finished(client, await submit(client, "true", name="also"))
    await client.jobs.find("also")
    spoil(server, also)

    said: list[str] = []
    [job async for job in client.jobs.list(JobFilter(), said.append)]

    (text,) = said
    count = int(text.split()[0])
    assert count == int(before[0].split()[0]) + 1
    assert text.startswith(f"{count} jobs are left out, as their records are damaged: ")
    theirs: list[str] = []
    [job async for job in alice.jobs.list(JobFilter(), theirs.append)]
    assert theirs == []


def copy(server: ServerProcess, job: Job, count: int) -> list[str]:
    """Put that many more jobs of its kind behind a job; their ids."""
    ids = [f"job-{uuid.uuid4()}" for _ in range(count)]
    with closing(sqlite3.connect(server.data_dir / "neuro.db", timeout=30)) as database, database:
        found = database.execute("SELECT * FROM jobs WHERE id = ?", (job.id,))
        row = dict(zip((it[0] for it in found.description), found.fetchone(), strict=True))
        del row["sequence"]
        marks = ", ".join(f":{name}" for name in row)
        rows = [row | {"id": new} for new in ids]
        database.executemany(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})", rows)
    return ids


@pytest.mark.parametrize("at", [700, 1001])
async def test_a_list_of_many_says_it_of_all_of_them(tmp_path: Path, at: int) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            job = await finished(client, await submit(client, "true", name="one"))
            await client.jobs.find("one")
            ids = copy(server, job, 1100)
            damaged = await client.jobs.get(ids[at])
            spoil(server, damaged)

            said: list[str] = []
            found = [one.id async for one in client.jobs.list(JobFilter(), said.append)]

            assert found == [job.id, *ids[:at], *ids[at + 1 :]]
            assert said == [
                f"1 job is left out, as its record is damaged: {damaged.id}."
                " `neuro kill` ends one that is not over."
            ]


def runs(word: str) -> bool:
    """Whether a process has this in its command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(word.encode() in entry.read_bytes())
    return any(found)


async def test_one_that_is_not_over_can_be_ended(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            word = f"{random.randrange(10**6, 10**7)}.5"
            job = await running(client, f"exec sleep {word}", name="spoilt")
            server.stop()
            spoil(server, job)
            server.start()
            home = Home(tmp_path / "home")
            home.ok("config", "login-with-token", server.token, server.url)
            told = await asyncio.to_thread(home.run, "ps")
            assert told.returncode == 0
            assert "1 job is left out, as its record is damaged: job-" in told.stderr
            assert runs(word)

            told = await asyncio.to_thread(home.run, "kill", "spoilt")

            assert (told.returncode, told.stdout) == (0, "spoilt\n")
            async with asyncio.timeout(30):
                while runs(word):
                    await asyncio.sleep(0.01)
            over = await client.jobs.get(job.id)
            assert (over.status, over.history.reason) == (JobStatus.CANCELLED, "UserRequested")
            assert over.history.description == (
                "The record of the job was damaged, and is what could be made of the rest"
            )
            assert "left out" not in (await asyncio.to_thread(home.run, "ps", "--all")).stderr
            assert (await submit(client, "true", name="spoilt")).name == "spoilt"


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


async def test_one_of_somebody_who_is_removed_ends_with_them(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            await client.users.add("dora")
            token = (await client.users.create_token("dora")).token
            word = f"{random.randrange(10**6, 10**7)}.5"
            async with Client.connect(server.url, token) as dora:
                job = await running(dora, f"exec sleep {word}")
            server.stop()
            spoil(server, job)
            server.start()
            assert runs(word)

            await client.users.remove("dora")

            async with asyncio.timeout(30):
                while runs(word):
                    await asyncio.sleep(0.01)
            assert (await client.jobs.get(job.id)).status is JobStatus.CANCELLED
