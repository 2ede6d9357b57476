"""The feed of changes between servers of one database: nothing is missed, and none told twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.fleet import changes as module
from neuro.server.fleet.changes import Changes, Snapshot, Topic, record, sweep
from tests.postgres import PostgresServer
from tests.server.fleet.servers import Member, member, until

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        yield url


def told(one: Member, *topics: Topic) -> list[object]:
    heard: list[object] = []
    for topic in topics:
        one.changes.listen(
            topic,
            lambda keys, topic=topic: heard.append(keys and (topic, *keys)),  # type: ignore[misc]
        )
    return heard


async def tell(one: Member, topic: Topic, *keys: str) -> None:
    await one.database.write(lambda c: record(c, topic, keys))
    one.changes.ring()


async def test_another_server_is_told_and_the_own_one_is_not(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        own, other = told(first, Topic.JOB), told(second, Topic.JOB)

        await tell(first, Topic.JOB, "1", "2")
        await tell(first, Topic.BAKE, "3")
        await tell(first, Topic.JOB, "4")

        await until(lambda: (Topic.JOB, "4") in other or (Topic.JOB, "1", "2", "4") in other)
        assert {key for keys in other for key in keys[1:]} == {"1", "2", "4"}  # type: ignore[index]
        await first.changes.look()
        assert own == []


async def test_keys_come_in_order_each_once_until_another_topic(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await second.freeze()
        heard = told(second, Topic.JOB, Topic.BAKE)

        def write(connection: Connection) -> None:
            for topic, key in (
                (Topic.JOB, "1"),
                (Topic.JOB, "2"),
                (Topic.JOB, "1"),
                (Topic.BAKE, "3"),
                (Topic.JOB, "1"),
            ):
                record(connection, topic, [key])

        await first.database.write(write)
        await second.changes.look()

        assert heard == [(Topic.JOB, "1", "2"), (Topic.BAKE, "3"), (Topic.JOB, "1")]


async def test_a_transaction_that_commits_late_is_not_missed(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await second.freeze()
        heard = told(second, Topic.JOB)
        with first.database.engine.connect() as late:
            record(late, Topic.JOB, ["early number"])
            await first.database.write(lambda c: record(c, Topic.JOB, ["late number"]))
            await second.changes.look()
            assert heard == [(Topic.JOB, "late number")]

            late.commit()

        await second.changes.look()
        await second.changes.look()
        assert heard == [(Topic.JOB, "late number"), (Topic.JOB, "early number")]


async def test_what_is_rolled_back_is_not_told(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await second.freeze()
        heard = told(second, Topic.JOB)
        with first.database.engine.connect() as connection:
            record(connection, Topic.JOB, ["never"])

        await second.changes.look()

        assert heard == []


async def test_many_writers_at_once_lose_nothing(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second, member(url, "c") as third:
        heard = told(third, Topic.JOB)
        keys = [str(number) for number in range(100)]

        await asyncio.gather(
            *(tell(one, Topic.JOB, f"{one.id}{key}") for key in keys for one in (first, second))
        )

        expected = {f"{name}{key}" for name in "ab" for key in keys}

        def seen() -> list[str]:
            return [key for some in heard for key in some[1:]]  # type: ignore[index]

        await until(lambda: len(seen()) >= len(expected))
        assert sorted(seen()) == sorted(expected)


async def test_who_cannot_be_woken_looks_each_second(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        heard = told(second, Topic.JOB)

        # As when the server ends between its commit and the call.
        await first.database.write(lambda c: record(c, Topic.JOB, ["1"]))

        await until(lambda: heard)


async def test_who_fell_behind_is_told_to_look_at_everything(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await second.freeze()
        heard = told(second, Topic.JOB, Topic.BAKE)
        monkeypatch.setattr(module, "MOST", 3)
        for number in range(5):
            await first.database.write(partial(_record, Topic.JOB, str(number)))

        await second.changes.look()
        assert heard == [None, None]

        await first.database.write(partial(_record, Topic.JOB, "after"))
        await second.changes.look()
        assert heard == [None, None, (Topic.JOB, "after")]


def _record(topic: Topic, key: str, connection: Connection) -> None:
    record(connection, topic, [key])


async def test_who_slept_longer_than_changes_are_kept_looks_at_everything(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(url, "b") as second:
        await second.freeze()
        heard = told(second, Topic.JOB)
        monkeypatch.setattr(module, "KEEP_SECONDS", 0.0)

        await second.changes.look()

        assert heard == [None]


async def test_a_sweep_removes_what_a_snapshot_showed_and_nothing_else(url: str) -> None:
    async with member(url, "a") as first:
        await first.freeze()
        database = first.database
        with database.engine.connect() as late:
            record(late, Topic.JOB, ["late"])
            await database.write(partial(_record, Topic.JOB, "seen"))
            seen = await database.read(_seen)
            await database.write(partial(_record, Topic.JOB, "after"))
            late.commit()

        await database.write(lambda c: sweep(c, seen))

        assert await database.read(_keys) == ['["late"]', '["after"]']


async def test_an_outbox_that_grew_too_long_is_emptied_and_everybody_looks_at_everything(
    url: str,
) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await first.freeze()
        await second.freeze()
        heard = [told(one, Topic.JOB) for one in (first, second)]
        seen = await first.database.read(_seen)
        for number in range(4):
            await first.database.write(partial(_record, Topic.JOB, str(number)))

        await first.database.write(lambda c: sweep(c, seen, most=3))

        for one in (first, second):
            await one.changes.look()
        assert heard == [[None], [None]]
        assert await first.database.read(_keys) == ["[]"]


def _seen(connection: Connection) -> Snapshot:
    row = connection.execute(text("SELECT CAST(pg_current_snapshot() AS TEXT)")).scalar_one()
    return Snapshot.of(row, 0)


def _keys(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT keys FROM changes ORDER BY sequence")).scalars())


async def test_on_sqlite_nothing_is_written_and_no_task_runs(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'neuro.db'}")
    migrate(database)
    changes = Changes(database, "a", Background())
    await changes.start()

    await database.write(partial(_record, Topic.JOB, "1"))
    changes.ring()
    await changes.look()

    count = await database.read(lambda c: c.execute(text("SELECT count(*) FROM changes")).scalar())
    assert count == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await changes.close()
    database.close()
