"""Leases: who does what alone, on a real PostgreSQL; SQLite has one server, which has them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.fleet import leases as module
from neuro.server.fleet.changes import Changes
from neuro.server.fleet.leases import Lease, LeaseLost, Leases
from tests.postgres import PostgresServer
from tests.server.fleet.servers import PATIENCE, SOON, member, until


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        yield url


def expire(connection: Connection) -> None:
    connection.execute(text("UPDATE leases SET expires_at = 1"))


# Whether somebody waits for what this connection has locked.
_WAITS = text(
    "SELECT true FROM pg_locks WHERE NOT granted"
    " AND pg_backend_pid() = ANY(pg_blocking_pids(pid)) LIMIT 1"
)


def work_until(connection: Connection, holds: Callable[[], object]) -> None:
    """Be at work until it is so, and never idle: PostgreSQL lets the transaction be."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        connection.execute(text("SELECT pg_sleep(0.01)"))


@pytest.mark.postgres
async def test_one_of_two_servers_has_a_lease_and_gives_it_to_the_other_at_its_end(
    url: str,
) -> None:
    async with member(url, "b") as second:
        async with member(url, "a") as first:
            await first.seek("sweeps")
            await second.seek("sweeps")
            assert first.events == ["taken sweeps 1"]
            assert await second.leases.holder_of("sweeps") == "a"
            given_back = time.monotonic()

        await until(lambda: second.lease)
        # Told, and not found when it would have run out.
        assert time.monotonic() - given_back < SOON

        assert first.events == ["taken sweeps 1", "lost sweeps"]
        assert second.events == ["taken sweeps 2"]
        assert await second.leases.holder_of("sweeps") == "b"


@pytest.mark.postgres
async def test_a_lease_that_is_not_renewed_is_taken_within_three_seconds(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await first.seek("sweeps")
        await second.seek("sweeps")
        lease = first.lease
        assert lease is not None
        await first.freeze()
        stopped = time.monotonic()

        await until(lambda: second.lease)

        assert time.monotonic() - stopped < SOON
        assert not lease.is_held
        with pytest.raises(LeaseLost, match="has just taken over from this one"):
            await first.database.write(lease.check)
        assert second.lease is not None
        await second.database.write(second.lease.check)


@pytest.mark.postgres
async def test_who_was_frozen_hears_of_its_loss_at_the_next_renewal_and_waits_again(
    url: str,
) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await first.seek("sweeps")
        await first.freeze()
        await second.seek("sweeps")
        await until(lambda: second.lease)

        await first.leases.start()
        await until(lambda: len(first.events) > 1)

        assert first.events == ["taken sweeps 1", "lost sweeps"]
        await second.leases.give_up("sweeps")
        await until(lambda: first.lease)
        assert first.events[-1] == "taken sweeps 3"


@pytest.mark.postgres
async def test_a_late_renewal_keeps_what_nobody_has_taken(url: str) -> None:
    async with member(url, "a") as first:
        await first.seek("sweeps")
        lease = first.lease
        assert lease is not None
        await first.database.write(expire)
        lease.renewed(0.0)
        assert not lease.is_held

        await until(lambda: lease.is_held)

        assert first.events == ["taken sweeps 1"]
        await first.database.write(lease.check)


@pytest.mark.postgres
async def test_who_takes_a_lease_waits_for_the_transaction_that_it_fences(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await first.seek("sweeps")
        lease = first.lease
        assert lease is not None
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def fenced(connection: Connection) -> str:
            lease.check(connection)
            loop.call_soon_threadsafe(begun.set)
            work_until(connection, lambda: connection.execute(_WAITS).scalar())
            return ",".join(second.events)

        work = asyncio.create_task(first.database.write(fenced))
        await begun.wait()
        await first.freeze()
        await second.database.write(expire)
        await second.seek("sweeps")

        assert await work == ""
        await until(lambda: second.lease)


@pytest.mark.postgres
async def test_a_renewal_does_not_wait_for_a_fenced_transaction(url: str) -> None:
    async with member(url, "a") as first:
        await first.seek("sweeps")
        lease = first.lease
        assert lease is not None
        renewals: list[float] = []
        lease.renewed = renewals.append  # type: ignore[method-assign]

        def fenced(connection: Connection) -> None:
            lease.check(connection)
            before = len(renewals)
            work_until(connection, lambda: len(renewals) > before)

        await first.database.write(fenced)


@pytest.mark.postgres
async def test_a_frozen_transaction_keeps_nobody_waiting(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second:
        await first.seek("sweeps")
        lease = first.lease
        assert lease is not None
        await first.freeze()
        # A process that is stopped in the middle of a transaction leaves it open.
        frozen = first.database.engine.connect()
        lease.check(frozen)

        begun = time.monotonic()
        await second.seek("sweeps")
        await until(lambda: second.lease)

        assert time.monotonic() - begun < SOON
        frozen.invalidate()


@pytest.mark.postgres
async def test_what_cannot_be_begun_is_given_back_and_sought_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    told: list[str] = []

    async def taken(lease: Lease) -> None:
        told.append(f"taken {lease.number}")
        if len(told) == 1:
            raise RuntimeError("in the middle")

    async def lost() -> None:
        told.append("lost")

    async with member(url, "a") as first:
        await first.leases.keep("sweeps", taken, lost)
        await until(lambda: len(told) == 3)

    assert told == ["taken 1", "lost", "taken 2", "lost"]


@pytest.mark.postgres
async def test_many_servers_seek_many_leases_and_each_has_one_holder(url: str) -> None:
    async with member(url, "a") as first, member(url, "b") as second, member(url, "c") as third:
        members = [first, second, third]
        names = [f"engine:{number}" for number in range(6)]
        await asyncio.gather(*(one.seek(name) for one in members for name in names))

        await until(lambda: sum(len(one.events) for one in members) == len(names))

        assert sorted(event for one in members for event in one.events) == [
            f"taken {name} 1" for name in names
        ]


async def test_on_sqlite_a_lease_is_there_at_once_and_costs_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'neuro.db'}")
    migrate(database)
    background = Background()
    changes = Changes(database, "a", background)
    leases = Leases(database, "a", background, changes)
    await changes.start()
    await leases.start()
    told: list[str] = []

    async def taken(lease: Lease) -> None:
        assert lease.is_held
        await database.write(lease.check)
        told.append("taken")

    async def lost() -> None:
        told.append("lost")

    await leases.keep("sweeps", taken, lost)
    assert told == ["taken"]
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()
    count = await database.read(lambda c: c.execute(text("SELECT count(*) FROM leases")).scalar())
    assert count == 0
    await leases.close()
    assert told == ["taken", "lost"]
    database.close()


@pytest.mark.postgres
async def test_who_has_not_looked_for_long_does_not_know_that_it_is_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(url, "a") as one:
        assert one.leases.is_alone

        monkeypatch.setattr(module, "ALONE_SECONDS", 0.0)

        assert not one.leases.is_alone


@pytest.mark.postgres
def test_a_host_that_goes_silent_is_given_up(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        for more, seconds in (("", "5"), ("&connect_timeout=7", "7")):
            database = Database(url + more)
            with database.engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                chosen = driver.info.get_parameters()
            database.close()

            assert chosen["connect_timeout"] == seconds
            assert chosen["tcp_user_timeout"] == "10000"
            assert chosen["keepalives_idle"] == "5"
