"""The server is killed while people push, mount and remove, and while garbage is collected.

What was answered is so afterwards; what a tag leads to can be pulled; and of all else nothing
stays.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from neuro.server.database.engine import Database
from neuro.server.registry.blobs import IMAGES
from tests.server.registry.client import INDEX, MANIFEST, Registry, digest_of, index, manifest
from tests.server.registry.test_collection import LONG, Platform
from tests.server_process import ServerProcess, running_server

KILLS = 3
PEOPLE = 3
STEPS = range(15, 60)  # answers, after which the server is killed
LAYERS = [number.to_bytes(2, "big") * 3000 for number in range(6)]
TAGS = ["v1", "v2", "v3"]


class Down(Exception):
    """The server has been killed."""


class Person:
    """Somebody who does one thing after the other in a repository of their own.

    ``tags`` is where tags lead by the server's word; of those in ``unsure`` it never told.
    """

    def __init__(self, home: str, others: list[str], chance: random.Random) -> None:
        self.home = home
        self.tags: dict[str, str] = {}
        self.unsure: set[str] = set()
        self._others = others
        self._chance = chance

    async def act(self, registry: Registry) -> None:
        """Do something. Raises Down."""
        tag = self._chance.choice(TAGS)
        acts = [self._push, self._whole, self._index, self._remove, self._leave]
        act = self._chance.choice(acts)
        self.unsure.add(tag)
        try:
            await act(registry, tag)
        except aiohttp.ClientError as error:
            raise Down from error
        self.unsure.discard(tag)

    async def _push(self, registry: Registry, tag: str) -> None:
        self.tags[tag], _ = await self._image(registry, tag)

    async def _whole(self, registry: Registry, tag: str) -> None:
        """Push an image as our builder does: only what the registry says it does not have."""
        layers = self._chance.sample(LAYERS, self._chance.randint(0, 3))
        config = json.dumps({"layers": len(layers)}).encode()
        content = manifest(config, layers)
        path = f"/v2/{self.home}/manifests/{tag}?whole=1"
        while True:
            answer = await registry.ask("PUT", path, content, Content_Type=MANIFEST)
            if answer.status == 201:
                break
            assert answer.status == 404, answer
            missing = {one["detail"]["digest"] for one in json.loads(answer.body)["errors"]}
            for blob in (config, *layers):
                if digest_of(blob) in missing:
                    await self._bring(registry, blob)
        self.tags[tag] = digest_of(content)

    async def _image(self, registry: Registry, reference: str | None) -> tuple[str, bytes]:
        layers = self._chance.sample(LAYERS, self._chance.randint(0, 3))
        config = json.dumps({"layers": len(layers)}).encode()
        for content in (config, *layers):
            await self._bring(registry, content)
        content = manifest(config, layers)
        await registry.push_manifest(self.home, reference or digest_of(content), content)
        return digest_of(content), content

    async def _bring(self, registry: Registry, content: bytes) -> None:
        """Push a layer as clients do: only where it is not there, and cannot be mounted."""
        digest = digest_of(content)
        if (await registry.ask("HEAD", f"/v2/{self.home}/blobs/{digest}")).status == 200:
            return
        mount = f"?mount={digest}&from={self._chance.choice(self._others)}"
        answer = await registry.ask("POST", f"/v2/{self.home}/blobs/uploads/{mount}")
        if answer.status == 201:
            return
        assert answer.status == 202, answer
        address = answer.headers["Location"]
        assert (await registry.ask("PATCH", address, content[:2000])).status == 202
        done = await registry.ask("PUT", f"{address}?digest={digest}", content[2000:])
        assert done.status == 201, done

    async def _index(self, registry: Registry, tag: str) -> None:
        parts = [(await self._image(registry, None))[1] for _ in range(2)]
        content = index(parts)
        self.tags[tag] = await registry.push_manifest(self.home, tag, content, INDEX)

    async def _remove(self, registry: Registry, tag: str) -> None:
        answer = await registry.ask("DELETE", f"/v2/{self.home}/manifests/{tag}")
        assert answer.status in (202, 404), answer
        self.tags.pop(tag, None)

    async def _leave(self, registry: Registry, tag: str) -> None:
        address = await registry.begin(self.home)
        assert (await registry.ask("PATCH", address, b"a part")).status == 202

    async def check(self, registry: Registry) -> set[str]:
        """What the server told is so; returns the digests of all blobs that tags lead to."""
        listed = json.loads((await registry.ask("GET", f"/v2/{self.home}/tags/list")).body)
        found = listed.get("tags", [])
        assert {*found} - self.unsure == {*self.tags} - self.unsure
        needed = set[str]()
        for tag in found:
            digest = await self._pull(registry, tag, needed)
            if tag not in self.unsure:
                assert digest == self.tags[tag]
            self.tags[tag] = digest
        for tag in self.unsure - {*found}:
            self.tags.pop(tag, None)
        self.unsure.clear()
        return needed

    async def _pull(self, registry: Registry, reference: str, needed: set[str]) -> str:
        answer = await registry.ask("GET", f"/v2/{self.home}/manifests/{reference}")
        assert answer.status == 200, answer
        content = json.loads(answer.body)
        for part in content.get("manifests", ()):
            await self._pull(registry, part["digest"], needed)
        for part in [*content.get("layers", ()), *filter(None, [content.get("config")])]:
            blob = await registry.ask("GET", f"/v2/{self.home}/blobs/{part['digest']}")
            assert (blob.status, digest_of(blob.body)) == (200, part["digest"])
            needed.add(part["digest"])
        return digest_of(answer.body)


@pytest.fixture
def sweeping(own_database: str | None, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that does nothing but collect garbage, beside what it is asked for."""
    program = [str(Path(__file__).with_name("sweeping.py"))]
    with running_server(tmp_path / "data", database=own_database, program=program) as server:
        yield server


@pytest.fixture
async def platform(sweeping: ServerProcess) -> AsyncIterator[Platform]:
    """What the server has, seen from beside it while it is down."""
    database = Database(sweeping.database_url)
    platform = Platform(database, sweeping.data_dir / "storage" / IMAGES)
    yield platform
    await platform.close()
    database.close()


@pytest.mark.timeout(600)
async def test_what_was_answered_is_so_after_the_server_was_killed(
    sweeping: ServerProcess, session: aiohttp.ClientSession, platform: Platform
) -> None:
    chance = random.Random(0)
    homes = [f"{sweeping.user}/of-{number}" for number in range(PEOPLE)]
    people = [Person(home, homes, chance) for home in homes]

    for _ in range(KILLS):
        await _work_until_killed(sweeping, session, people, chance)
        platform.later(LONG)
        await asyncio.to_thread(sweeping.start)
        registry = Registry(session, sweeping.url, sweeping.token)
        needed = set[str]().union(*[await person.check(registry) for person in people])

    await asyncio.to_thread(sweeping.kill)
    platform.later(LONG)
    await platform.collection.sweep()
    assert {digest for digest, _ in platform.store.files()} == needed
    assert not list(platform.store.uploads())
    assert not list(platform.store.trash())


async def _work_until_killed(
    server: ServerProcess,
    session: aiohttp.ClientSession,
    people: list[Person],
    chance: random.Random,
) -> None:
    registry = Registry(session, server.url, server.token)
    rest, killed = chance.choice(STEPS), asyncio.Event()

    async def work(person: Person) -> None:
        nonlocal rest
        while not killed.is_set():
            try:
                await person.act(registry)
            except Down:
                return
            rest -= 1
            if not rest:
                await asyncio.to_thread(server.kill)
                killed.set()

    await asyncio.gather(*map(work, people))
