"""Whatever is done in whatever order: what a tag leads to can be pulled, and nothing else stays."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.registry.errors import MissingBlobs, RegistryError
from neuro.server.registry.names import Repository
from tests.server.registry.client import INDEX, MANIFEST, digest_of, index, manifest
from tests.server.registry.test_collection import ANNA, LONG, Platform

HOMES = [Repository("anna/one"), Repository("anna/two")]
LAYERS = [b"a", b"bb", b"ccc"]
TAGS = ["v1", "v2"]

home, layer, tag = st.sampled_from(HOMES), st.sampled_from(LAYERS), st.sampled_from(TAGS)
layers = st.lists(layer, max_size=3, unique=True)
step = st.one_of(
    st.tuples(st.just("push"), home, layer),
    st.tuples(st.just("mount"), home, layer),
    st.tuples(st.just("image"), home, layers, tag),
    st.tuples(st.just("whole"), home, layers, tag),
    st.tuples(st.just("lose"), layer),
    st.tuples(st.just("index"), home, st.lists(layers, min_size=1, max_size=2), tag),
    st.tuples(st.just("referrer"), home, tag),
    st.tuples(st.just("remove"), home, tag),
    st.tuples(st.just("remove image"), home, tag),
    st.tuples(st.just("cut off"), home),
    st.tuples(st.just("crash"), layer),
    st.tuples(st.just("collect")),
    st.tuples(st.just("wait")),
)


class Model:
    """What has to be there: images by their digests, and where tags lead."""

    def __init__(self) -> None:
        self.tags: dict[tuple[Repository, str], str] = {}
        self.needs: dict[tuple[Repository, str], list[bytes]] = {}
        self.parts: dict[tuple[Repository, str], list[str]] = {}
        self.about: dict[tuple[Repository, str], str] = {}

    def remove(self, at: Repository, digest: str) -> None:
        """An image goes by its digest."""
        for things in (self.needs, self.parts, self.about):
            things.pop((at, digest), None)  # type: ignore[attr-defined]
        self.tags = {key: to for key, to in self.tags.items() if key[0] != at or to != digest}

    def led_to(self) -> set[tuple[Repository, str]]:
        """What stays: by tags, by what lists it, by what it is about."""
        there = {*self.needs, *self.parts}
        found = {(at, digest) for (at, _), digest in self.tags.items()}
        size = -1
        while size != len(found):
            size = len(found)
            for at, digest in list(found):
                found |= {(at, part) for part in self.parts.get((at, digest), ())}
            found |= {
                (at, one) for (at, one), subject in self.about.items() if (at, subject) in found
            }
        return found & there


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(step, max_size=25))
def test_what_is_needed_stays_and_nothing_else(
    database: Database, steps: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database.write_now(_empty)
        asyncio.run(_walk(database, Path(folder), steps))


def _empty(connection: Connection) -> None:
    for table in ("repositories", "blobs", "uploads"):
        connection.execute(text(f"DELETE FROM registry_{table}"))


async def _walk(database: Database, folder: Path, steps: list[tuple[object, ...]]) -> None:
    platform, model = Platform(database, folder / "registry"), Model()

    for each in steps:
        match each:
            case ("push", Repository() as at, bytes(content)):
                await platform.push(content, at)
            case ("mount", Repository() as at, bytes(content)):
                await platform.registry.mount(ANNA, at, digest_of(content), None)
            case ("image", Repository() as at, list(needed), str(name)):
                model.tags[at, name] = await _image(platform, model, at, needed, name)
            case ("whole", Repository() as at, list(needed), str(name)):
                model.tags[at, name] = await _whole(platform, model, at, needed, name)
            case ("lose", bytes(content)):
                # As a disk loses files: of what images need, the loss would be one.
                if content not in chain.from_iterable(model.needs.values()):
                    (folder / "registry" / "blobs" / _place(content)).unlink(missing_ok=True)
            case ("index", Repository() as at, list(parts), str(name)):
                for needed in parts:
                    await _image(platform, model, at, needed, None)
                contents = [manifest(b"{}", needed) for needed in parts]
                digest = await platform.tag(index(contents), at, name, INDEX)
                model.parts[at, digest] = list(map(digest_of, contents))
                model.tags[at, name] = digest
            case ("referrer", Repository() as at, str(name)):
                if subject := model.tags.get((at, name)):
                    about = {"mediaType": MANIFEST, "digest": subject, "size": 1}
                    content = manifest(b"{}", [b"a"], subject=about)
                    await _image(platform, model, at, [b"a"], None, content)
                    model.about[at, digest_of(content)] = subject
            case ("remove", Repository() as at, str(name)):
                await _quietly(platform, at, name)
                model.tags.pop((at, name), None)
            case ("remove image", Repository() as at, str(name)):
                if digest := model.tags.get((at, name)):
                    await _quietly(platform, at, digest)
                    model.remove(at, digest)
            case ("cut off", Repository() as at):
                upload = await platform.registry.uploads.begin(ANNA, at)
                incoming = await platform.registry.uploads.go_on(upload, "sha256")
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
        await _check(platform, model)

    platform.later(LONG)
    await platform.collection.sweep()
    await _check(platform, model)
    needed_blobs = {digest_of(one) for key in model.led_to() for one in model.needs.get(key, ())}
    assert {digest for digest, _ in platform.store.files()} == needed_blobs
    for at in HOMES:
        assert await platform.images(at) == {key[1] for key in model.led_to() if key[0] == at}
    assert not list(platform.store.uploads())
    assert not list(platform.store.trash())
    await platform.close()


async def _image(
    platform: Platform,
    model: Model,
    at: Repository,
    needed: list[bytes],
    name: str | None,
    content: bytes | None = None,
) -> str:
    for one in needed:
        await platform.push(one, at)
    digest = await platform.tag(content or manifest(b"{}", needed), at, name)
    model.needs[at, digest] = needed
    return digest


async def _whole(
    platform: Platform, model: Model, at: Repository, needed: list[bytes], name: str
) -> str:
    """Push an image and nothing of it that is there already."""
    # Not the configuration of other images, which nobody has pushed.
    content, every = manifest(b"whole", needed), [b"whole", *needed]
    there = [await platform.has(digest_of(one), at) for one in every]
    missing = [one for one, is_there in zip(every, there, strict=True) if not is_there]
    if missing:
        before = await platform.images(at)
        with pytest.raises(MissingBlobs) as caught:
            await platform.tag(content, at, name, whole=True)
        assert {one["digest"] for one in caught.value.details} == set(map(digest_of, missing))
        assert await platform.images(at) == before
    for one in missing:
        await platform.push(one, at)
    digest = await platform.tag(content, at, name, whole=True)
    model.needs[at, digest] = every
    return digest


def _place(content: bytes) -> str:
    algorithm, _, encoded = digest_of(content).partition(":")
    return f"{algorithm}/{encoded[:2]}/{encoded}"


async def _quietly(platform: Platform, at: Repository, reference: str) -> None:
    with suppress(RegistryError):  # There may be none.
        await platform.registry.remove(at, reference)


async def _check(platform: Platform, model: Model) -> None:
    for (at, name), digest in model.tags.items():
        found = await platform.registry.look_at_manifest(at, name)
        assert found.digest == digest
    for at, digest in model.led_to():
        found = await platform.registry.look_at_manifest(at, digest)
        assert found.digest == digest
        for content in model.needs.get((at, digest), ()):
            assert await platform.has(digest_of(content), at), content
