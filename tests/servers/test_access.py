"""Rights that end at one of several servers: nobody has them at another, and nothing streams on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.permissions import Action
from tests.server.jobs import submit
from tests.servers.fleet import fleet_of
from tests.servers.pgbouncer import both_ways

pytestmark = pytest.mark.postgres


class Reader:
    """Somebody who follows the jobs of another at a server."""

    def __init__(self, url: str, name: str, token: str) -> None:
        self.name = name
        self._url = url
        self.http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})

    async def follow(self, job_id: str) -> None:
        self._events = await self.http.get(f"{self._url}/jobs/events")
        assert job_id.encode() in await self._events.content.readline()

    async def status_of(self, job_id: str) -> int:
        async with self.http.get(f"{self._url}/jobs/{job_id}") as answer:
            return answer.status

    async def is_cut_off(self) -> bool:
        async with asyncio.timeout(30):
            with pytest.raises(aiohttp.ClientPayloadError):
                await self._events.read()
        return True


async def reader(stack: AsyncExitStack, owner: Client, url: str, name: str) -> Reader:
    await owner.users.add(name)
    token = await owner.users.create_token(name)
    await owner.permissions.share(f"job://default/{owner.user}", name, Action.READ)
    made = Reader(url, name, token.token or "")
    stack.push_async_callback(made.http.close)
    return made


@both_ways
async def test_it_holds_at_every_server_at_once(tmp_path: Path, shared_database: str) -> None:
    with fleet_of("one", "other", folder=tmp_path, database=shared_database) as fleet:
        async with AsyncExitStack() as stack:
            owner = await stack.enter_async_context(fleet["one"].connect())
            job = (await submit(owner, "true", preset_name="shared")).id
            anna, boris, carol = [
                await reader(stack, owner, fleet["other"].url, name)
                for name in ("anna", "boris", "carol")
            ]
            for each in (anna, boris, carol):
                await each.follow(job)

            (token,) = await owner.users.tokens("anna")
            await owner.users.revoke_token("anna", token.id)
            assert await anna.status_of(job) == 401
            await owner.permissions.revoke(f"job://default/{owner.user}", "boris")
            assert await boris.status_of(job) == 400  # no such job
            await owner.users.remove("carol")
            assert await carol.status_of(job) == 401

            for each in (anna, boris, carol):
                assert await each.is_cut_off()
