"""A damaged database: a sentence that says what to do, when the server starts and when it works."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import Conflict, Unavailable
from neuro.engines.base import EngineFault
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.soundness import at_work, check
from tests.server.jobs import finished, submit
from tests.server_process import ServerProcess

ADVICE = r"neuro\.db is damaged \(.*\)\. Stop the server \(`neuro down`\), remove .* from a backup"


def damage(path: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(query, (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xaa" * size)


@pytest.fixture
def server(tmp_path: Path) -> ServerProcess:
    """A server that has worked once, and has been stopped."""
    server = ServerProcess(tmp_path / "data")
    server.start()
    server.stop()
    return server


async def test_a_request_that_meets_a_damaged_page_is_told_what_to_do(
    server: ServerProcess,
) -> None:
    damage(server.data_dir / "neuro.db", "flow_projects")
    server.start()
    try:
        async with Client.connect(server.url, server.token) as client:
            with pytest.raises(Unavailable, match=ADVICE):
                await client.flows.create_project("mine")
            job = await finished(client, await submit(client, "true"))
            assert job.history.exit_code == 0
    finally:
        server.stop()
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("table", ["flow_projects", "jobs", "alembic_version"])
def test_after_a_kill_a_damaged_page_is_found_at_the_start(
    server: ServerProcess, table: str
) -> None:
    server.start()
    server.kill()
    damage(server.data_dir / "neuro.db", table)

    with pytest.raises(RuntimeError, match=ADVICE):
        server.start()
    assert "Traceback" not in server.log()


def test_a_file_that_is_no_database_is_told_at_every_start(server: ServerProcess) -> None:
    (server.data_dir / "neuro.db").write_bytes(b"not a database at all" * 1000)

    with pytest.raises(RuntimeError, match=ADVICE):
        server.start()
    assert "Traceback" not in server.log()


def test_only_after_an_end_that_was_none_is_the_database_looked_at(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    marker = tmp_path / "at-work"
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name TEXT)")
    with at_work(database, marker):
        assert marker.exists()
    assert not marker.exists()
    database.close()
    damage(tmp_path / "neuro.db", "things")

    with at_work(database, marker):
        pass
    marker.touch()
    with pytest.raises(Unavailable, match=ADVICE), at_work(database, marker):
        pass
    database.close()


@pytest.mark.parametrize(
    ("error", "is_left"),
    [
        (EngineFault("this machine cannot fence jobs in"), False),
        (Conflict("the port is taken"), False),
        (Unavailable("neuro.db is damaged"), True),
    ],
)
def test_a_start_that_is_refused_leaves_nothing_to_look_at(
    tmp_path: Path, error: Exception, is_left: bool
) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    marker = tmp_path / "at-work"

    with pytest.raises(type(error)), at_work(database, marker):
        raise error

    assert marker.exists() is is_left
    database.close()


def test_the_look_at_a_large_database_ends_in_time(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name TEXT)")
        connection.exec_driver_sql(
            "INSERT INTO things WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 200000) SELECT hex(randomblob(20)) FROM n"
        )
    assert database.path is not None

    check(database, database.path, seconds=0.0)

    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar() == 200_000
    database.close()
