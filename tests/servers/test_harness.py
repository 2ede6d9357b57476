"""What tests of several servers stand on: a server, its shared engine, and a pooled database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from neuro.domain.jobs import JobStatus
from tests.engines.plain.supervisor import processes_of
from tests.postgres import PostgresServer
from tests.server.jobs import finished, output_of, running, submit
from tests.servers import pgbouncer
from tests.servers.fleet import Fleet, fleet_of
from tests.servers.pgbouncer import PgBouncer, both_ways

pytestmark = pytest.mark.postgres


async def test_jobs_of_the_shared_engine_outlive_their_server(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", folder=tmp_path, database=url) as fleet,
    ):
        server = fleet["one"]
        async with server.connect() as client:
            waits = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo over"
            job = await running(client, waits, preset_name="shared")

            server.kill()
            server.start()
            (tmp_path / "go").touch()

            assert (await finished(client, job)).status is JobStatus.SUCCEEDED
            assert await output_of(client, job) == b"up\nover\n"


async def test_a_server_that_stands_still_goes_on_where_it_was(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", folder=tmp_path, database=url) as fleet,
    ):
        server = fleet["one"]
        async with server.connect() as client:
            server.freeze()
            asked = asyncio.create_task(submit(client, "true", preset_name="shared"))
            done, _ = await asyncio.wait([asked], timeout=0.5)  # nobody tells that nothing happens
            assert not done

            server.thaw()

            assert (await finished(client, await asked)).status is JobStatus.SUCCEEDED


@both_ways
async def test_a_server_works_through_pgbouncer(tmp_path: Path, shared_database: str) -> None:
    with fleet_of("one", folder=tmp_path, database=shared_database) as fleet:
        async with fleet["one"].connect() as client:
            jobs = [await submit(client, "true", preset_name="shared") for _ in range(3)]

            assert {(await finished(client, job)).status for job in jobs} == {JobStatus.SUCCEEDED}


def test_a_session_of_pgbouncer_is_a_transaction_long(
    postgres_server: PostgresServer, bouncer: PgBouncer
) -> None:
    with (
        postgres_server.database() as url,
        psycopg.connect(bouncer.url(url), autocommit=True) as one,
        psycopg.connect(bouncer.url(url), autocommit=True) as other,
    ):
        pids = {
            connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, other)
        }

        assert len(pids) == 1


async def test_a_fleet_that_cannot_end_its_jobs_leaves_nothing_all_the_same(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, database=None)
    fleet.add("one").start()
    async with fleet["one"].connect() as client:
        await running(client, "sleep 600", preset_name="shared")
        assert processes_of(str(fleet.engine))
    (tmp_path / "one" / "run" / "owner.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"owner\.json"):
        fleet.close()

    assert not fleet["one"].is_running()
    assert not processes_of(str(fleet.engine))


def test_a_pgbouncer_that_does_not_start_leaves_nothing(
    bouncer: PgBouncer, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgbouncer, "START_SECONDS", -1.0)
    late = PgBouncer(postgres_server.url("postgres"))

    with pytest.raises(RuntimeError, match="did not start"), late:
        pass

    folder = parse_qs(urlsplit(late.url("postgresql:")).query)["host"][0]
    assert not Path(folder).exists()
    for program in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # It is gone.
            assert folder.encode() not in program.read_bytes()
