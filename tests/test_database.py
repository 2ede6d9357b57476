"""The tests' own database server: each test gets an empty database, on both kinds."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from neuro.server.database.engine import Database


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
