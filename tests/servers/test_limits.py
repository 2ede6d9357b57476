"""A limit on the jobs that drive bakes holds also where two servers are asked at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import TooManyRequests
from neuro.domain.images import EXECUTOR_IMAGE
from neuro.domain.jobs import JobFilter
from tests.server.jobs import finished, submit
from tests.servers.fleet import SETTINGS, fleet_of

pytestmark = pytest.mark.postgres

LIMITED = SETTINGS + "[bakes]\nmain_jobs_per_owner = 3\n"


async def is_accepted(client: Client) -> bool:
    """Whether a main job is; it is never over: there is no such bake, so it begins again."""
    command = "neuro-flow execute bake-00000000-0000-4000-8000-000000000000"
    try:
        await submit(client, command, image=EXECUTOR_IMAGE, restart_policy="always")
    except TooManyRequests:
        return False
    return True


async def test_two_servers_at_once_accept_no_more_main_jobs_than_one(
    tmp_path: Path, shared_database: str
) -> None:
    async with AsyncExitStack() as stack:
        fleet = stack.enter_context(
            fleet_of("one", "two", folder=tmp_path, database=shared_database, settings=LIMITED)
        )
        clients = [
            await stack.enter_async_context(member.connect()) for member in fleet.members.values()
        ]
        one, two = clients

        told = await asyncio.gather(*(is_accepted(client) for client in clients * 10))

        assert sum(told) == 3
        jobs = [job async for job in one.jobs.list(JobFilter())]
        assert len(jobs) == 3
        # Room is there as soon as one is over, on whichever server.
        await one.jobs.kill(jobs[0].id)
        await finished(one, jobs[0])
        assert await is_accepted(two)
        assert not await is_accepted(one)
