"""Jobs of several servers: any of them answers, one has the engine, and that one may die."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from neuro.client import Client
from neuro.client.installation import server_state
from neuro.domain.errors import NotFound, Unavailable
from neuro.domain.jobs import Job, JobFilter, JobStatus
from tests.postgres import PostgresServer
from tests.server.jobs import finished, output_of, running, submit
from tests.server.test_engines import answer_to_a_reload
from tests.servers.fleet import SETTINGS, Fleet, fleet_of
from tests.servers.pgbouncer import PgBouncer

pytestmark = pytest.mark.postgres

NAMED = (
    SETTINGS
    + """
[[presets]]
name = "of-{name}"
cpu = 0.5
memory = "256M"
[server]
name = "{name}"
"""
)


def holder_of(fleet: Fleet, url: str) -> str:
    """The name of the server that has the shared engine."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT servers.name FROM leases JOIN servers ON servers.id = leases.holder"
            " WHERE leases.name = 'engine:shared'"
        ).fetchone()
    assert row is not None
    return str(row[0])


async def clients_of(stack: AsyncExitStack, fleet: Fleet) -> dict[str, Client]:
    return {
        name: await stack.enter_async_context(member.connect())
        for name, member in fleet.members.items()
    }


async def end_of(client: Client, job: Job) -> JobStatus | None:
    """How a job ended, as the stream of events tells."""
    async for event in client.jobs.events(ids=[job.id]):
        if event.job is not None and event.job.status.is_finished:
            return event.job.status
    return None


async def test_any_server_answers_for_the_jobs_of_all(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        fleet = stack.enter_context(
            fleet_of("one", "two", "three", folder=tmp_path, database=url, settings=NAMED)
        )
        one, two, three = (await clients_of(stack, fleet)).values()

        # Submitted anywhere, listed anywhere, followed anywhere.
        job = await running(
            two,
            "read line; echo $line; exit 3",
            preset_name="shared",
            max_run_time_minutes=70,
            stdin=True,
        )
        own = await submit(three, "echo own", preset_name="own")
        for client in (one, two, three):
            assert {found.id async for found in client.jobs.list(JobFilter())} == {job.id, own.id}
            async with client.jobs.exec(job.id, "echo inside") as session:
                assert await session.read() == (1, b"inside\n")
        assert await output_of(one, own) == b"own\n"
        await two.jobs.extend_life_span(job.id, 7)
        assert (await one.jobs.get(job.id)).max_run_time_minutes == 77
        async for event in two.jobs.events(ids=[job.id]):
            assert event.job is None or event.job.status is JobStatus.RUNNING
            if event.synced:
                break
        over_there = asyncio.create_task(end_of(two, job))
        async with three.jobs.attach(job.id, stdin=True) as session:
            await session.write(b"over there\n")
            assert await session.read() == (1, b"over there\n")
        over = await finished(three, job)
        assert (over.status, over.history.exit_code) == (JobStatus.FAILED, 3)
        assert await over_there is JobStatus.FAILED

        # Ended anywhere.
        jobs = [await running(client, "sleep 600", preset_name="shared") for client in (one, two)]
        await three.jobs.kill(jobs[0].id)
        await one.jobs.kill(jobs[1].id)
        for client, job in zip((two, three), jobs, strict=True):
            assert (await finished(client, job)).status is JobStatus.CANCELLED


async def test_a_job_is_saved_through_any_server(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        fleet = stack.enter_context(
            fleet_of("one", "two", folder=tmp_path, database=url, settings=NAMED)
        )
        clients = await clients_of(stack, fleet)
        one, two = clients["one"], clients["two"]
        job = await running(one, "sleep 600", preset_name="of-one")

        image = two.images.image("image:saved:v1")
        told = [event.status async for event in two.jobs.save(job.id, image)]

        assert told[:2] == ["CommitStarted", "CommitFinished"]
        assert [tag async for tag in one.images.tags(image)] == ["v1"]
        assert [tag async for tag in two.images.tags(image)] == ["v1"]
        over = await finished(one, await submit(one, "true", preset_name="of-one"))
        with pytest.raises(NotFound, match="is not running: its status is succeeded"):
            await anext(two.jobs.save(over.id, image))
        await one.jobs.kill(job.id)


async def test_jobs_go_on_when_the_server_that_had_their_engine_is_killed(
    tmp_path: Path, postgres_server: PostgresServer, bouncer: PgBouncer
) -> None:
    ran = tmp_path / "ran"
    ran.touch()

    async def begin(client: Client, number: int) -> Job:
        command = f"sh -c 'echo {number} >> {ran}; sleep 0.2'"
        return await submit(client, command, preset_name="shared")

    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        fleet = stack.enter_context(
            fleet_of("one", "two", folder=tmp_path, database=bouncer.url(url), settings=NAMED)
        )
        clients = await clients_of(stack, fleet)
        holder = holder_of(fleet, url)
        other = next(client for name, client in clients.items() if name != holder)
        jobs = [await begin(clients[holder], number) for number in range(10)]

        killed = asyncio.create_task(asyncio.to_thread(fleet[holder].kill))
        jobs += [await begin(other, number) for number in range(10, 20)]
        await killed

        ended = [await finished(other, job) for job in jobs]
        assert {job.status for job in ended} == {JobStatus.SUCCEEDED}
        assert Counter(ran.read_text().split()) == Counter(str(number) for number in range(20))

        # What is a part of its machine waits for it.
        waits = await submit(other, "true", preset_name=f"of-{holder}")
        needs = f"Waits for a server that has the engine 'sandbox-{holder}'"
        async with asyncio.timeout(30):  # until it is noticed that nobody has it
            while (await other.jobs.get(waits.id)).history.description != needs:
                await asyncio.sleep(0.05)
        fleet[holder].start()
        assert (await finished(other, waits)).status is JobStatus.SUCCEEDED


async def test_a_holder_that_was_frozen_does_no_harm_when_it_wakes_up(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    ran = tmp_path / "ran"
    ran.touch()
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        fleet = stack.enter_context(
            fleet_of("one", "two", folder=tmp_path, database=url, settings=NAMED)
        )
        clients = await clients_of(stack, fleet)
        holder = holder_of(fleet, url)
        other = next(client for name, client in clients.items() if name != holder)
        waits = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo first >> {ran}"
        job = await running(clients[holder], waits, preset_name="shared")

        fleet[holder].freeze()
        # It runs once there is somebody who has the engine.
        second = await finished(
            other, await submit(other, f"sh -c 'echo second >> {ran}'", preset_name="shared")
        )
        (tmp_path / "go").touch()
        assert (await finished(other, job)).status is JobStatus.SUCCEEDED
        fleet[holder].thaw()
        third = await submit(clients[holder], f"sh -c 'echo third >> {ran}'", preset_name="shared")

        for client in clients.values():
            assert (await finished(client, third)).status is JobStatus.SUCCEEDED
            assert (await client.jobs.get(job.id)).status is JobStatus.SUCCEEDED
            assert (await client.jobs.get(second.id)).status is JobStatus.SUCCEEDED
        assert ran.read_text().split() == ["second", "first", "third"]


async def test_a_server_starts_while_another_one_is_away_and_has_jobs(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        fleet = stack.enter_context(
            fleet_of("one", "two", folder=tmp_path, database=url, settings=NAMED)
        )
        one, two = fleet["one"], fleet["two"]
        async with two.connect() as client:
            waits = "until test -e /tmp/go; do sleep 0.05; done; echo over"
            job = await running(client, waits, preset_name="of-two")
        two.stop()
        one.stop()

        one.start()
        async with one.connect() as client:
            assert (await client.jobs.get(job.id)).status is JobStatus.RUNNING
            with pytest.raises(Unavailable, match="job goes on without it; its output is back"):
                async with client.jobs.exec(job.id, "true"):
                    pass
            notices = {state.name: state.notices for state in (await server_state(client)).engines}
            away = "No server has the engine 'sandbox-two' now: start the one that it belongs to."
            assert away in notices["sandbox-two"]
            assert away not in notices["sandbox-one"]

            two.start()
            async with client.jobs.exec(job.id, "touch /tmp/go") as session:
                assert await session.read() is None
            assert await output_of(client, job) == b"up\nover\n"
            assert (await client.jobs.get(job.id)).status is JobStatus.SUCCEEDED

            # An address that leads back here.
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "UPDATE servers SET url = (SELECT url FROM servers WHERE name = 'one')"
                )
            with pytest.raises(NotFound, match="passed on to another server than was meant"):
                await output_of(client, job)

            more = '[engines.more]\nkind = "sandbox"\ncpu = 1\nmemory = "1G"\n'
            two.stop()
            with (two.data_dir / "server.toml").open("a") as settings:
                settings.write(more)
            two.start()
            async with asyncio.timeout(30):
                while "more-two" not in [one.name for one in (await server_state(client)).engines]:
                    await asyncio.sleep(0.05)
            named_alike = (one.data_dir / "server.toml").read_text().replace('"one"', '"two"')
            refused = await answer_to_a_reload(one, named_alike + more)
            assert refused is not None
            assert "has an engine 'more-two' on its machine" in refused


async def test_two_machines_have_no_engine_of_one_name(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", folder=tmp_path, database=url) as fleet,
    ):
        with pytest.raises(RuntimeError, match="has an engine 'sandbox' on its machine"):
            fleet.add("two", settings=f"{SETTINGS}[server]\n").start()

        async with fleet["one"].connect() as client:
            job = await submit(client, "true", preset_name="own")
            assert (await finished(client, job)).status is JobStatus.SUCCEEDED
