"""What mirrors bring, without a server around them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete
from structlog.testing import capture_logs

from neuro.domain.errors import TooManyRequests, Unavailable
from neuro.domain.image_upkeep import ImageRules
from neuro.engines.images.registry_client import Answer
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.fetches import Fetch
from neuro.server.registry.manifest_tables import find_manifest
from neuro.server.registry.mirrors import THREADS_PER_PERSON, USUAL_RULES, Mirror, Mirrors
from neuro.server.registry.names import Repository
from neuro.server.registry.tables import blobs, links
from neuro.server.registry.upkeep import Upkeep
from neuro.server.threads import working_for
from tests.engines.small_registry import SmallRegistry, running

DEBIAN = Repository("docker.io/library/debian")
OTHER = Repository("docker.io/library/other")
HELD_SECONDS = 30.0


class HoldingRegistry(SmallRegistry):
    """Gives no layer until ``may_give`` is set; ``asked`` counts who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.may_give = threading.Event()
        self.may_give.set()
        self.asked = threading.Semaphore(0)

    def _send_blob(self, request: BaseHTTPRequestHandler, digest: str) -> None:
        if request.command == "GET":
            self.asked.release()
            self.may_give.wait(HELD_SECONDS)
        with suppress(ConnectionError):  # whoever asked has gone
            super()._send_blob(request, digest)


class WatchedStore(BlobStore):
    """Does ``before_looking`` before it says whether it has a blob."""

    before_looking: Callable[[], object] = staticmethod(lambda: None)

    def has(self, digest: str) -> bool:
        found = super().has(digest)
        self.before_looking()
        return found


@pytest.fixture
def upstream() -> Iterator[HoldingRegistry]:
    registry = HoldingRegistry()
    with running(registry):
        yield registry
        registry.may_give.set()


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "images")


@pytest.fixture
async def mirrors(
    upstream: SmallRegistry, database: Database, store: BlobStore
) -> AsyncIterator[Mirrors]:
    host = upstream.address.removeprefix("http://")
    mirror = Mirror("docker.io", host, size=1 << 20, insecure=True)
    mirrors = Mirrors(database, store, {"docker.io": mirror}, tag_seconds=0.0)
    yield mirrors
    await mirrors.close()


async def _layers(mirrors: Mirrors, database: Database, home: Repository) -> list[str]:
    """The digests of the layers of an image that is brought."""
    await mirrors.bring_manifest(home, "1")
    found = await database.read(lambda c: find_manifest(c, home.path, "1"))
    assert found is not None
    return [layer["digest"] for layer in json.loads(found.content)["layers"]]


async def _bring(mirrors: Mirrors, home: Repository, digest: str) -> Fetch:
    fetch = await mirrors.bring_blob(home, digest)
    assert fetch is not None
    await fetch.whole()
    return fetch


def _given(upstream: SmallRegistry, digest: str) -> int:
    return sum(digest in path for path, _ in upstream.requests)


def _meanwhile(store: WatchedStore, work: Callable[[], Awaitable[Any]]) -> None:
    """Do something once, between two steps of a blob's way."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        store.before_looking = lambda: None

        async def do() -> None:
            await work()

        asyncio.run_coroutine_threadsafe(do(), loop).result(HELD_SECONDS)

    store.before_looking = once


async def _two_with_one_layer(
    upstream: SmallRegistry, mirrors: Mirrors, database: Database, layer: bytes
) -> str:
    """A layer that is here for one image, and that another one needs too."""
    for home in (DEBIAN, OTHER):
        value = {"config": upstream.blob(b"{}", "x"), "layers": [upstream.blob(layer, "y")]}
        name = home.path.removeprefix("docker.io/")
        upstream.document(name, value, "application/vnd.oci.image.manifest.v1+json", "1")
    [digest] = await _layers(mirrors, database, DEBIAN)
    assert await _layers(mirrors, database, OTHER) == [digest]
    await _bring(mirrors, DEBIAN, digest)
    return digest


async def _has(database: Database, home: Repository, digest: str) -> bool:
    return await database.read(lambda c: blob_tables.find_blob(c, home.path, digest)) is not None


async def test_a_blob_that_is_removed_while_it_is_linked_is_brought(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database, store: WatchedStore
) -> None:
    digest = await _two_with_one_layer(upstream, mirrors, database, b"a layer")
    before = _given(upstream, digest)
    _meanwhile(
        store,
        lambda: database.write(lambda c: c.execute(delete(blobs).where(blobs.c.digest == digest))),
    )

    await _bring(mirrors, OTHER, digest)

    assert await _has(database, OTHER, digest)
    assert _given(upstream, digest) == before + 1


async def test_a_link_takes_no_more_than_the_mirror_may(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database, store: WatchedStore
) -> None:
    digest = await _two_with_one_layer(upstream, mirrors, database, b"a layer")

    def fill(connection: Any) -> None:
        # Nobody of the mirror has the layer any more, and others have taken all the room.
        connection.execute(delete(links).where(links.c.digest == digest))
        home, full = Repository("docker.io/library/full"), f"sha256:{64 * '0'}"
        blob_tables.put_blob(connection, home, full, 1 << 20, datetime.now(UTC))

    _meanwhile(store, lambda: database.write(fill))

    with pytest.raises(RegistryError, match="does not fit"):
        await _bring(mirrors, OTHER, digest)


@pytest.mark.parametrize(
    "error", [ssl.SSLError("bad record"), OSError(errno.EHOSTUNREACH, "no route")]
)
async def test_a_layer_goes_on_after_any_trouble_of_the_network(
    upstream: HoldingRegistry,
    mirrors: Mirrors,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    upstream.image("library/debian", os.urandom(1 << 19), tag="1")
    [digest] = await _layers(mirrors, database, DEBIAN)
    read, reads = Answer.read, iter(range(1000))

    def sometimes(answer: Answer, most: int) -> bytes:
        if next(reads) == 1:
            raise error
        return read(answer, min(most, 1 << 16))

    monkeypatch.setattr(Answer, "read", sometimes)
    await _bring(mirrors, DEBIAN, digest)

    assert await _has(database, DEBIAN, digest)
    assert _given(upstream, digest) == 2


async def test_what_nobody_expected_is_in_the_log(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database, store: WatchedStore
) -> None:
    upstream.image("library/debian", "a", tag="1")
    [digest] = await _layers(mirrors, database, DEBIAN)
    store.begin = None  # type: ignore[method-assign, assignment]

    with capture_logs() as logs, pytest.raises(TypeError):
        await _bring(mirrors, DEBIAN, digest)

    [told] = [one for one in logs if one["event"] == "mirror failed"]
    assert (told["image"], told["blob"]) == (DEBIAN.path, digest)


async def test_a_tag_is_what_it_was_where_no_name_is_known(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database, store: WatchedStore
) -> None:
    upstream.image("library/debian", "a", tag="1")
    await mirrors.bring_manifest(DEBIAN, "1")
    offline = {"docker.io": Mirror("docker.io", "registry.invalid")}
    later = Mirrors(database, store, offline, tag_seconds=0.0)

    await later.bring_manifest(DEBIAN, "1")
    with pytest.raises(Unavailable):
        await later.bring_manifest(DEBIAN, "2")

    await later.close()


async def test_questions_do_not_wait_for_downloads(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database
) -> None:
    upstream.image("library/debian", *map(str, range(THREADS_PER_PERSON + 1)), tag="1")
    upstream.image("library/other", "a", tag="1")
    digests = await _layers(mirrors, database, DEBIAN)
    upstream.may_give.clear()
    for digest in digests:
        await mirrors.bring_blob(DEBIAN, digest)
    for _ in range(THREADS_PER_PERSON):
        assert await asyncio.to_thread(upstream.asked.acquire, timeout=HELD_SECONDS)

    await mirrors.bring_manifest(OTHER, "1")

    assert not upstream.may_give.is_set()
    assert await database.read(lambda c: find_manifest(c, OTHER.path, "1")) is not None
    assert not upstream.asked.acquire(blocking=False)  # The downloads still have all their threads.


async def test_layers_that_wait_for_a_thread_have_no_file(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database, store: WatchedStore
) -> None:
    upstream.image("library/debian", *map(str, range(THREADS_PER_PERSON + 8)), tag="1")
    upstream.image("library/other", "a", tag="1")
    digests = await _layers(mirrors, database, DEBIAN)
    upstream.may_give.clear()

    coming = [await mirrors.bring_blob(DEBIAN, digest) for digest in digests]
    for _ in range(THREADS_PER_PERSON):
        assert await asyncio.to_thread(upstream.asked.acquire, timeout=HELD_SECONDS)
    await mirrors.bring_manifest(OTHER, "1")  # Whatever is asked before a download has been.

    assert len(list(store.uploads())) == THREADS_PER_PERSON
    upstream.may_give.set()
    for fetch in coming:
        assert fetch is not None
        await fetch.whole()
    assert list(store.uploads()) == []


async def test_a_person_who_asks_for_many_layers_and_leaves_is_refused_the_next(
    upstream: HoldingRegistry,
    mirrors: Mirrors,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuro.server.registry.mirrors.MOST_COMING", 2)
    upstream.image("library/debian", "a", "b", "c", tag="1")
    first, second, third = await _layers(mirrors, database, DEBIAN)
    upstream.may_give.clear()

    with working_for("mallory"):
        one, other = (
            await mirrors.bring_blob(DEBIAN, first),
            await mirrors.bring_blob(DEBIAN, second),
        )
        with pytest.raises(TooManyRequests, match="2 layers") as refused:
            await mirrors.bring_blob(DEBIAN, third)
        assert refused.value.retry_after
        assert await mirrors.bring_blob(DEBIAN, first) is one
    with working_for("alice"):
        hers = await mirrors.bring_blob(DEBIAN, third)
    upstream.may_give.set()

    for fetch in (one, other, hers):
        assert fetch is not None
        await fetch.whole()


async def test_a_person_who_asks_for_many_images_and_leaves_is_refused_the_next(
    upstream: HoldingRegistry, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.server.registry.mirrors.MOST_COMING", 2)
    upstream.image("library/debian", "a", tag="1")
    with working_for("mallory"):
        asking = [asyncio.create_task(mirrors.bring_manifest(DEBIAN, f"v{n}")) for n in range(2)]
        await asyncio.sleep(0)

        for task in asking:
            task.cancel()
        with pytest.raises(TooManyRequests, match="2 images"):
            await mirrors.bring_manifest(DEBIAN, "1")

    await mirrors.bring_manifest(DEBIAN, "1")


async def test_a_layer_that_two_want_does_not_wait_for_all_that_one_of_them_wants(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database
) -> None:
    upstream.image("library/debian", *map(str, range(THREADS_PER_PERSON + 2)), tag="1")
    *many, last = await _layers(mirrors, database, DEBIAN)
    upstream.may_give.clear()
    with working_for("mallory"):
        for digest in (*many, last):
            await mirrors.bring_blob(DEBIAN, digest)
        for _ in range(THREADS_PER_PERSON):
            assert await asyncio.to_thread(upstream.asked.acquire, timeout=HELD_SECONDS)

    with working_for("alice"):
        await mirrors.bring_blob(DEBIAN, last)

    assert await asyncio.to_thread(upstream.asked.acquire, timeout=HELD_SECONDS)
    assert _given(upstream, last) == 1


async def test_what_nobody_pulls_goes_after_a_while(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database
) -> None:
    upstream.image("library/debian", "a", tag="1")
    await mirrors.bring_manifest(DEBIAN, "1")
    usual = {"docker.io": USUAL_RULES}

    def sweep(after_days: float) -> Awaitable[int]:
        later = datetime.now(UTC) + timedelta(days=after_days)
        return Upkeep(database, usual, lambda: later).sweep()

    assert await sweep(after_days=29) == 0
    assert await sweep(after_days=31) == 1
    assert await database.read(lambda c: find_manifest(c, DEBIAN.path, "1")) is None


async def _sizes(database: Database) -> dict[str, int]:
    tags = await Upkeep(database).tags(DEBIAN, "", 10)
    return {tag.tag: tag.size for tag in tags}


async def test_a_tag_is_as_large_as_its_manifest_says(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database
) -> None:
    image = upstream.image("library/debian", "a", "b", tag="1")
    upstream.index("library/debian", ("linux/amd64", image), tag="all")
    size = sum(len(blob) for blob in upstream.blobs.values())

    await mirrors.bring_manifest(DEBIAN, "all")
    assert await _sizes(database) == {"all": 0}
    await mirrors.bring_manifest(DEBIAN, image["digest"])
    assert await _sizes(database) == {"all": size}
    await mirrors.bring_manifest(DEBIAN, "1")
    assert await _sizes(database) == {"1": size, "all": size}


async def test_an_immutable_tag_stays_what_it_was_first(
    upstream: HoldingRegistry, mirrors: Mirrors, database: Database
) -> None:
    async def tag(name: str) -> str | None:
        await mirrors.bring_manifest(DEBIAN, name)
        found = await database.read(lambda c: find_manifest(c, DEBIAN.path, name))
        return found and found.digest

    rules = ImageRules(immutable=["v*"])
    await Upkeep(database).set_rules(Repository("docker.io"), rules)
    first = upstream.image("library/debian", "a", tag="v1")
    upstream.image("library/debian", "a", tag="latest")
    assert await tag("v1") == await tag("latest") == first["digest"]
    second = upstream.image("library/debian", "b", tag="v1")
    upstream.image("library/debian", "b", tag="latest")

    assert await tag("v1") == first["digest"]
    assert await tag("latest") == second["digest"]
