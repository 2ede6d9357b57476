"""The administrator's guide on back-ups, done step by step on each database."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from neuro.server.database.engine import Database
from tests.postgres import PostgresServer
from tests.server.jobs import finished, output_of, submit
from tests.server_process import ServerProcess, running_server

pytestmark = pytest.mark.root


class Backups:
    """A folder of back-ups, and the commands of the guide."""

    def __init__(self, folder: Path, postgres: PostgresServer | None) -> None:
        self._folder = folder
        self._postgres = postgres

    def take(self, server: ServerProcess) -> None:
        """Copy the data folder and dump the database of a server that is stopped."""
        subprocess.run(["cp", "-a", server.data_dir, self._folder / "neuro"], check=True)
        if self._postgres is not None:
            self._postgres.dump(server.database_url, self._folder / "neuro.dump")

    def restore(self, server: ServerProcess) -> None:
        """Put the back-up in place of what a server that is stopped has."""
        shutil.rmtree(server.data_dir)
        subprocess.run(["cp", "-a", self._folder / "neuro", server.data_dir], check=True)
        if self._postgres is not None:
            self._postgres.empty(server.database_url)
            self._postgres.restore(self._folder / "neuro.dump", server.database_url)

    def restore_beside(self, folder: Path, database: str | None) -> ServerProcess:
        """A server for a copy of the back-up, to look whether it is good."""
        subprocess.run(["cp", "-a", self._folder / "neuro", folder], check=True)
        if self._postgres is not None and database is not None:
            self._postgres.restore(self._folder / "neuro.dump", database)
        return ServerProcess(folder, database=database)


@pytest.fixture
def backups(request: pytest.FixtureRequest, own_database: str | None, tmp_path: Path) -> Backups:
    """A place for the back-ups of ``own_server``."""
    (tmp_path / "backup").mkdir()
    postgres = None if own_database is None else request.getfixturevalue("postgres_server")
    return Backups(tmp_path / "backup", postgres)


async def use(server: ServerProcess) -> str:
    """Leave one of everything that a person has, and return the id of the job."""
    async with Client.connect(server.url, server.token) as client:
        await client.storage.create(f"storage:/{server.user}/model.bin", b"weights")
        await client.flows.create_project("mine")
        await client.users.add("alice")
        job = await submit(client, "echo learned", name="trained", description="Größe 雪")
        return (await finished(client, job)).id


async def check_all_is_there(server: ServerProcess, job_id: str, token: str) -> None:
    """What ``use`` left can be read, with a token that was given out before the back-up."""
    async with Client.connect(server.url, token) as client:
        job = await client.jobs.get(job_id)
        assert (job.status, job.name) == (JobStatus.SUCCEEDED, "trained")
        assert job.description == "Größe 雪"
        assert await output_of(client, job) == b"learned\n"
        uri = f"storage:/{server.user}/model.bin"
        assert await client.storage.read_bytes(uri) == b"weights"
        assert [project.name for project in await client.flows.projects()] == ["mine"]
        assert {user.name for user in await client.users.all()} == {server.user, "alice"}
        after = await submit(client, "echo after")
        assert await output_of(client, after) == b"after\n"


async def test_what_was_backed_up_is_there_again_after_a_restore(
    own_server: ServerProcess, backups: Backups
) -> None:
    job_id = await use(own_server)
    async with Client.connect(own_server.url, own_server.token) as client:
        token = (await client.users.create_token(own_server.user)).token
    own_server.stop()
    backups.take(own_server)

    own_server.start()
    async with Client.connect(own_server.url, own_server.token) as client:
        await client.users.remove("alice")
        later = await finished(client, await submit(client, "echo later"))
    own_server.stop()
    backups.restore(own_server)
    own_server.start()

    await check_all_is_there(own_server, job_id, token)
    async with Client.connect(own_server.url, own_server.token) as client:
        assert later.id not in [job.id async for job in client.jobs.list()]


async def test_a_back_up_can_be_looked_at_beside_the_server(
    request: pytest.FixtureRequest,
    own_server: ServerProcess,
    own_database: str | None,
    backups: Backups,
    tmp_path: Path,
) -> None:
    job_id = await use(own_server)
    own_server.stop()
    backups.take(own_server)
    own_server.start()
    database = None
    if own_database is not None:
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        database = postgres.create()

    second = backups.restore_beside(tmp_path / "check", database)
    second.start()

    await check_all_is_there(second, job_id, second.token)
    second.stop()
    await check_all_is_there(own_server, job_id, own_server.token)


async def test_an_older_version_refuses_a_newer_database_and_the_back_up_brings_it_back(
    own_server: ServerProcess, backups: Backups
) -> None:
    job_id = await use(own_server)
    own_server.stop()
    backups.take(own_server)
    upgrade(own_server)

    with pytest.raises(RuntimeError, match=r"written by a newer version .*restore the back-up"):
        own_server.start()
    assert "Traceback" not in own_server.log()

    backups.restore(own_server)
    own_server.start()
    await check_all_is_there(own_server, job_id, own_server.token)


def upgrade(server: ServerProcess) -> None:
    """Leave the database as a version of the future would: with a table, and its number."""
    database = Database(server.database_url)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE inventions (name VARCHAR(64))"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()


@pytest.mark.postgres
async def test_a_restore_into_a_database_that_is_not_empty_is_refused_by_postgres(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with (
        postgres_server.database() as url,
        running_server(tmp_path / "data", database=url) as server,
    ):
        server.stop()
        postgres_server.dump(url, tmp_path / "neuro.dump")

        with pytest.raises(subprocess.CalledProcessError):
            postgres_server.restore(tmp_path / "neuro.dump", url)
