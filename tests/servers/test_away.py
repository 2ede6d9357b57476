"""A job whose machine is away is not ended yet: whoever asks for its end is told, and sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from neuro.cli.server.down import running_jobs
from neuro.domain.jobs import Job, JobFilter, JobStatus, Reason
from tests.cli.platform import Home
from tests.flow.cli.project import Person
from tests.postgres import PostgresServer
from tests.server.jobs import finished, running, submit
from tests.servers.fleet import fleet_of
from tests.servers.test_jobs import NAMED

pytestmark = pytest.mark.postgres

ENDS = "Ends when a server has the engine 'sandbox-two' again"


def is_to_end(job: Job) -> bool:
    return (job.history.reason, job.history.description) == (Reason.USER_REQUESTED, ENDS)


async def test_a_stop_waits_for_the_machine_and_is_shown_meanwhile(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", "two", folder=tmp_path / "fleet", database=url, settings=NAMED) as fleet,
    ):
        one, two = fleet["one"], fleet["two"]
        async with one.connect() as client:
            jobs = [await running(client, "sleep 600", preset_name="of-two") for _ in range(3)]
            spared = jobs.pop()
            # `neuro down` says how many jobs go on without the server that it stops.
            going = [await asyncio.to_thread(running_jobs, it.data_dir) for it in (one, two)]
            assert going == [0, 3]
            two.stop()
            jobs.append(await submit(client, "true", preset_name="of-two"))

            notices = [await client.jobs.kill(job.id) for job in (jobs[0], jobs[2], jobs[0])]

            assert notices[0] == notices[2]
            assert [note for each in notices for note in each] == [
                f"The machine of job {job.id} is away: no server has its engine 'sandbox-two' now."
                " The job ends when that server is back."
                for job in (jobs[0], jobs[2], jobs[0])
            ]
            home = Home(tmp_path / "home")
            home.ok("config", "login-with-token", one.token, one.url)
            told = await asyncio.to_thread(home.run, "kill", jobs[1].id)
            assert (told.returncode, told.stdout) == (0, f"{jobs[1].id}\n")
            assert f"The machine of job {jobs[1].id} is away" in told.stderr
            shown = await asyncio.to_thread(home.ok, "status", jobs[1].id)
            assert f"Status: running (UserRequested: {ENDS})" in shown
            assert ENDS in await asyncio.to_thread(home.ok, "ps", "--all-owners")
            with home.start("top", spared.id) as top:
                await asyncio.to_thread(
                    top.until, f"No server has the engine 'sandbox-two' of job {spared.id} now."
                )
            listed = [job async for job in client.jobs.list(JobFilter())]
            assert {job.id: is_to_end(job) for job in listed} == {
                spared.id: False,
                **dict.fromkeys((job.id for job in jobs), True),
            }
            one_by_one = [await client.jobs.get(job.id) for job in jobs]
            assert [job.status for job in one_by_one] == [
                JobStatus.RUNNING,
                JobStatus.RUNNING,
                JobStatus.PENDING,
            ]
            assert all(map(is_to_end, one_by_one))

            two.start()
            ended = [await finished(client, job) for job in jobs]
            assert {job.status for job in ended} == {JobStatus.CANCELLED}
            assert await client.jobs.kill(spared.id) == ()
            assert (await finished(client, spared)).status is JobStatus.CANCELLED


LIVE = """
kind: live
jobs:
  sleeps: {image: ubuntu, preset: of-two, detach: true, cmd: sleep 600}
"""


async def test_a_live_job_whose_machine_is_away_is_not_waited_for(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", "two", folder=tmp_path / "fleet", database=url, settings=NAMED) as fleet,
    ):
        one, two = fleet["one"], fleet["two"]
        person = Person(tmp_path / "home")
        person.write(".neuro/live.yml", LIVE)
        person.ok("config", "login-with-token", one.token, one.url)
        person.flow_ok("run", "sleeps")
        two.stop()

        told = await asyncio.to_thread(person.flow, "kill", "sleeps")

        assert told.returncode == 0
        assert "is away: no server has its engine 'sandbox-two' now" in told.stderr
        assert "Killed" not in told.stdout
        two.start()
        async with one.connect() as client:
            (job,) = [job async for job in client.jobs.list(JobFilter())]
            assert (await finished(client, job)).status is JobStatus.CANCELLED
