"""A server that is frozen in the middle of a transaction, as the others meet it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import Connection, text

from neuro.domain.errors import Unavailable
from neuro.server.database.engine import Database
from tests.servers.pgbouncer import both_ways

pytestmark = pytest.mark.postgres


@both_ways
async def test_what_it_holds_keeps_no_other_waiting(shared_database: str) -> None:
    frozen, other = Database(shared_database), Database(shared_database)
    await other.write(lambda c: c.execute(text("CREATE TABLE mark (x INT)")))
    await other.write(lambda c: c.execute(text("INSERT INTO mark VALUES (1)")))
    is_in, goes_on = threading.Event(), threading.Event()

    def stand_still(connection: Connection) -> None:
        connection.execute(text("UPDATE mark SET x = 2"))
        is_in.set()
        goes_on.wait()

    standing = asyncio.create_task(frozen.write(stand_still))
    await asyncio.to_thread(is_in.wait)

    async with asyncio.timeout(60):
        await other.write(lambda c: c.execute(text("UPDATE mark SET x = x + 10")))

    goes_on.set()
    with pytest.raises(Unavailable):
        await standing
    assert await frozen.read(lambda c: c.scalar(text("SELECT x FROM mark"))) == 11
    frozen.close()
    other.close()


@both_ways
async def test_its_change_is_undone_and_it_says_so(shared_database: str) -> None:
    database = Database(shared_database)

    def stand_still(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE mark (x INT)"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 1"))
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        asyncio.run_coroutine_threadsafe(_until_gone(database, pid), loop).result()
        connection.execute(text("SELECT 1"))

    loop = asyncio.get_running_loop()
    # The database says why it ends the connection, but who writes to it at that moment hears only
    # that it is gone.
    with pytest.raises(Unavailable, match=r"has undone it: try again|does not answer"):
        await database.write(stand_still)

    found = await database.read(lambda c: c.scalar(text("SELECT to_regclass('mark')")))
    assert found is None
    database.close()


async def _until_gone(database: Database, pid: int) -> None:
    there = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    while await database.read(lambda c: c.scalar(there, {"pid": pid})):
        pass
