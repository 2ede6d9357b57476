"""Images of several servers: each goes on with what another has begun, and collects beside it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from neuro.server.database.engine import Database
from neuro.server.registry.blobs import IMAGES
from tests.postgres import PostgresServer
from tests.server.registry.client import Answer, Registry, digest_of, manifest
from tests.server.registry.test_collection import LONG, Platform
from tests.server.registry.test_kills import Person
from tests.servers.fleet import Fleet, fleet_of

# Two servers have to start first, which takes long on a busy machine.
pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
ROUNDS = 2
STEPS = 6  # of each person in a round, and of the collection


class Both(Registry):
    """Two servers, by turns or by chance: as through a proxy that knows nothing of uploads."""

    def __init__(self, session: aiohttp.ClientSession, fleet: Fleet, chance: random.Random) -> None:
        super().__init__(session, fleet["a"].url, fleet["a"].token)
        self._addresses = [fleet[name].url.removesuffix("/api/v1") for name in ("a", "b")]
        self._chance = chance

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        self.address = self._chance.choice(self._addresses)
        return await super().ask(method, path, data, **headers)


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer) -> Iterator[str]:
    """The database of both servers."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="module")
def fleet(shared: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers, which the tests of this module share."""
    with fleet_of("a", "b", folder=tmp_path_factory.mktemp("fleet"), database=shared) as fleet:
        yield fleet


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_one_collects_while_others_are_pushed_to(
    fleet: Fleet, session: aiohttp.ClientSession, shared: str
) -> None:
    chance = random.Random(0)
    both = Both(session, fleet, chance)
    homes = [f"{fleet['a'].user}/of-{number}" for number in range(3)]
    people = [Person(home, homes, chance) for home in homes]
    database = Database(shared)
    platform = Platform(database, fleet.storage / IMAGES)

    async def collect() -> None:
        for _ in range(STEPS):
            await platform.collection.sweep()

    async def work(person: Person) -> None:
        for _ in range(STEPS):
            await person.act(both)

    for _ in range(ROUNDS):
        await asyncio.gather(collect(), *map(work, people))
        needed = set[str]().union(*[await person.check(both) for person in people])
        # All that is there is old: who needs it again in the next round has to come in time.
        platform.later(LONG)

    await platform.collection.sweep()
    there = {digest for digest, _ in platform.store.files()}
    assert there == needed
    assert not list(platform.store.uploads())
    await platform.close()
    database.close()


async def test_an_upload_goes_on_at_another_server(
    fleet: Fleet, session: aiohttp.ClientSession
) -> None:
    a, b = (Registry(session, fleet[name].url, fleet["a"].token) for name in ("a", "b"))
    home, pieces = f"{fleet['a'].user}/image", [os.urandom(1000) for _ in range(5)]
    content = b"".join(pieces)
    address = await a.begin(home)

    for at, piece in zip((a, b, b, a), pieces, strict=False):
        assert (await at.ask("PATCH", address, piece)).status == 202
    assert (await b.ask("GET", address)).headers["Range"] == "0-3999"
    done = await b.ask("PUT", f"{address}?digest={digest_of(content)}", pieces[-1])

    assert done.status == 201, done
    await b.push_manifest(home, "v1", manifest(b"{}", [content]))
    assert (await a.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    assert (await a.ask("GET", f"/v2/{home}/blobs/{digest_of(content)}")).body == content
    # One brings a part while the other wants to, and is told so.
    address = await a.begin(home)
    begun = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * (5 << 20)
        await begun.wait()

    slow = asyncio.create_task(a.ask("PATCH", address, slowly()))
    while (await b.ask("GET", address)).headers["Range"] == "0-0":
        pass
    refused = await b.ask("PATCH", address, b"y")
    begun.set()
    assert (refused.status, refused.code) == (409, "BLOB_UPLOAD_INVALID")
    assert (await slow).status == 202


async def test_a_quota_holds_over_all_servers(fleet: Fleet, session: aiohttp.ClientSession) -> None:
    user, size = "anna", 1 << 20
    async with fleet["a"].connect() as client:
        await client.images.set_quota(user, 5 * size)
        a, b = (Registry(session, fleet[name].url, fleet["a"].token) for name in ("a", "b"))

        async def push(at: Registry, number: int) -> int:
            content = bytes([number]) * size
            address = f"/v2/{user}/full/blobs/uploads/?digest={digest_of(content)}"
            return (await at.ask("POST", address, content)).status

        said = await asyncio.gather(*[push((a, b)[n % 2], n) for n in range(10)])

        assert set(said) <= {201, 403}
        assert said.count(201) >= 1
        assert (await client.images.quota(user)).used == said.count(201) * size <= 5 * size
