"""Whatever is done in whatever order: what an image needs can be pulled, and nothing else stays."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import Repository
from tests.server.registry.client import digest_of, manifest
from tests.server.registry.test_collection import ANNA, LONG, Platform

HOMES = [Repository("anna/one"), Repository("anna/two")]
LAYERS = [b"a", b"bb", b"ccc"]
TAGS = ["v1", "v2"]

home, layer, tag = st.sampled_from(HOMES), st.sampled_from(LAYERS), st.sampled_from(TAGS)
step = st.one_of(
    st.tuples(st.just("push"), home, layer),
    st.tuples(st.just("mount"), home, layer),
    st.tuples(st.just("image"), home, st.lists(layer, max_size=3, unique=True), tag),
    st.tuples(st.just("remove"), home, tag),
    st.tuples(st.just("remove image"), home, tag),
    st.tuples(st.just("cut off"), home),
    st.tuples(st.just("crash"), layer),
    st.tuples(st.just("collect")),
    st.tuples(st.just("wait")),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=25))
def test_what_is_needed_stays_and_nothing_else(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_walk(Path(folder), steps))


async def _walk(folder: Path, steps: list[tuple[object, ...]]) -> None:
    database = Database(sqlite_url(folder / "db"))
    migrate(database)
    platform = Platform(database, folder / "registry")
    # Tags, images by their digests with what they need, and whose blobs are there: what must be.
    tags: dict[tuple[Repository, str], str] = {}
    images: dict[tuple[Repository, str], list[bytes]] = {}

    for each in steps:
        match each:
            case ("push", Repository() as at, bytes(content)):
                await platform.push(content, at)
            case ("mount", Repository() as at, bytes(content)):
                await platform.registry.mount(ANNA, at, digest_of(content), None)
            case ("image", Repository() as at, list(layers), str(name)):
                for content in layers:
                    await platform.push(content, at)
                digest = await platform.tag(manifest(b"{}", layers), at, name)
                tags[at, name], images[at, digest] = digest, layers
            case ("remove", Repository() as at, str(name)):
                await _quietly(platform, at, name)
                tags.pop((at, name), None)
            case ("remove image", Repository() as at, str(name)):
                if digest := tags.get((at, name)):
                    await _quietly(platform, at, digest)
                    images.pop((at, digest))
                    tags = {key: it for key, it in tags.items() if key[0] != at or it != digest}
            case ("cut off", Repository() as at):
                upload = await platform.registry.begin_upload(ANNA, at)
                incoming = await platform.registry.continue_upload(upload, "sha256")
                incoming.write([b"a part"])
                incoming.close()
            case ("crash", bytes(content)):
                # After a file has its place, before its row is committed.
                platform.store.begin("crashed")
                (folder / "registry" / "uploads" / "crashed").write_bytes(content)
                platform.store.place("crashed", digest_of(content))
            case ("collect",):
                await platform.collection.sweep()
            case ("wait",):
                platform.later(LONG)
        await _check(platform, tags, images)

    platform.later(LONG)
    await platform.collection.sweep()
    await _check(platform, tags, images)
    needed = {digest_of(content) for layers in images.values() for content in layers}
    assert {digest for digest, _ in platform.store.files()} == needed
    assert not list(platform.store.uploads())
    await platform.registry.close()
    await platform.collection.close()
    database.close()


async def _quietly(platform: Platform, at: Repository, reference: str) -> None:
    with suppress(RegistryError):  # There may be none.
        await platform.registry.remove(at, reference)


async def _check(
    platform: Platform,
    tags: dict[tuple[Repository, str], str],
    images: dict[tuple[Repository, str], list[bytes]],
) -> None:
    for (at, name), digest in tags.items():
        assert (await platform.registry.manifest(at, name)).digest == digest
    for (at, digest), layers in images.items():
        assert (await platform.registry.manifest(at, digest)).digest == digest
        for content in layers:
            assert await platform.has(digest_of(content), at), content
