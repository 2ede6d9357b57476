"""The tests' own database server: each test gets an empty database, on both kinds."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from neuro.server.database.engine import Database, sqlite_url
from neuro.server.threads import working_for
from tests.postgres import PostgresServer


@pytest.mark.parametrize("which", ["first", "second"])
async def test_every_test_gets_an_empty_database(database_url: str, which: str) -> None:
    database = Database(database_url)

    await database.write(lambda connection: connection.execute(text("CREATE TABLE mark (x INT)")))

    database.close()


async def test_a_write_is_seen_by_the_next_read(database_url: str) -> None:
    database = Database(database_url)
    await database.write(lambda connection: connection.execute(text("CREATE TABLE mark (x INT)")))
    await database.write(lambda connection: connection.execute(text("INSERT INTO mark VALUES (7)")))

    found = await database.read(lambda connection: connection.scalar(text("SELECT x FROM mark")))

    assert found == 7
    database.close()


async def test_a_change_that_fails_leaves_nothing(database_url: str) -> None:
    database = Database(database_url)
    await database.write(lambda connection: connection.execute(text("CREATE TABLE mark (x INT)")))

    def half(connection: object) -> None:
        connection.execute(text("INSERT INTO mark VALUES (7)"))  # type: ignore[attr-defined]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await database.write(half)

    count = await database.read(
        lambda connection: connection.scalar(text("SELECT count(*) FROM mark"))
    )
    assert count == 0
    database.close()


async def test_one_persons_changes_do_not_wait_for_all_of_anothers(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    goes_on = threading.Event()
    order: list[str] = []

    def change(person: str, _: Connection) -> None:
        goes_on.wait()
        order.append(person)

    with working_for("mallory"):
        many = [asyncio.ensure_future(database.write(partial(change, "mallory"))) for _ in range(9)]
        await asyncio.sleep(0)  # All of them are asked for.
    with working_for("alice"):
        one = asyncio.ensure_future(database.write(partial(change, "alice")))
        await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(*many, one)

    # Mallory's first has begun, and the turn after it may be Mallory's too.
    assert order.index("alice") in (1, 2)
    database.close()


@pytest.mark.postgres
async def test_connections_that_the_database_has_ended_are_replaced(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.database() as url:
        database, other = Database(url), Database(url)
        await asyncio.gather(*(database.read(_nothing) for _ in range(4)))

        await other.write(
            lambda c: c.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )
        )

        await asyncio.gather(*(database.write(_nothing) for _ in range(4)))
        database.close()
        other.close()


def _nothing(connection: Connection) -> None:
    # Long enough for several to have a connection each.
    connection.execute(text("SELECT pg_sleep(0.05)"))
