"""What an image needs stays; the rest goes when it has not been needed for a while."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from neuro.domain.image_upkeep import WhyStored
from neuro.domain.permissions import owner_permissions
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.census import Census
from neuro.server.registry.collection import Collection
from neuro.server.registry.errors import MissingBlobs, RegistryError
from neuro.server.registry.names import Repository
from neuro.server.registry.service import RegistryService
from tests.server.registry.client import INDEX, MANIFEST, described, digest_of, index, manifest

GRACE = timedelta(hours=24)
LONG = GRACE + timedelta(minutes=1)
HOME, OTHER = Repository("anna/image"), Repository("anna/other")
_MOMENTS = (
    ("registry_links", "touched_at"),
    ("registry_uploads", "touched_at"),
    ("registry_manifests", "touched_at"),
    ("registry_manifests", "pulled_at"),
    ("registry_tags", "set_at"),
)
ANNA = Identity("anna", Grants.of(owner_permissions("anna", "default")), "")


class Platform:
    """A registry and its collection, whose past can be put further back."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.store = BlobStore(folder)
        self.registry = RegistryService(database, self.store, "default", grace=GRACE)
        self.collection = Collection(database, self.store, GRACE)
        self.census = Census(database, self.store, GRACE)
        self.database = database
        self._folder = folder

    async def close(self) -> None:
        """Wait for what is done in threads."""
        for part in (self.registry, self.collection, self.census):
            await part.close()

    def later(self, by: timedelta) -> None:
        """Let all that was done until now be so much longer ago."""
        for file in self._folder.rglob("*"):
            made = file.stat().st_mtime - by.total_seconds()
            os.utime(file, (made, made))

        def shift(connection: Connection) -> None:
            for table, column in _MOMENTS:
                change = f"UPDATE {table} SET {column} = {column} - :by"
                connection.execute(text(change), {"by": by // timedelta(microseconds=1)})

        self.database.write_now(shift)

    async def push(self, content: bytes, home: Repository = HOME) -> str:
        """Push a blob."""
        digest = digest_of(content)
        upload = await self.registry.uploads.begin(ANNA, home)
        incoming = await self.registry.uploads.go_on(upload, "sha256")
        incoming.write([content])
        await self.registry.uploads.finish(home, incoming, digest)
        incoming.close()
        return digest

    async def tag(
        self,
        content: bytes,
        home: Repository = HOME,
        tag: str | None = "v1",
        kind: str = MANIFEST,
        *,
        whole: bool = False,
    ) -> str:
        """Push a manifest; by its digest where there is no tag."""
        put = self.registry.put_manifest
        return (await put(home, tag or digest_of(content), [], content, kind, whole=whole)).digest

    async def images(self, home: Repository = HOME) -> set[str]:
        """The digests of a repository's manifests."""
        query = (
            "SELECT digest FROM registry_manifests WHERE repository_id ="
            " (SELECT id FROM registry_repositories WHERE path = :path)"
        )
        return set(
            await self.database.read(
                lambda c: c.execute(text(query), {"path": home.path}).scalars().all()
            )
        )

    async def has(self, digest: str, home: Repository = HOME) -> bool:
        """Whether a repository has a blob, looked up as who pulls does."""
        try:
            blob = await self.registry.open_blob(home, digest)
        except RegistryError:
            return False
        blob.close()
        return True


@pytest.fixture
async def platform(database_url: str, tmp_path: Path) -> AsyncIterator[Platform]:
    database = Database(database_url)
    migrate(database)
    platform = Platform(database, tmp_path / "registry")
    yield platform
    await platform.close()
    database.close()


async def test_what_an_image_needs_stays(platform: Platform) -> None:
    needed = await platform.push(b"layer")
    await platform.tag(manifest(b"{}", [b"layer"]))

    platform.later(LONG)
    await platform.collection.sweep()

    assert await platform.has(needed)


async def test_what_no_image_needs_goes_after_a_while(platform: Platform) -> None:
    spare = await platform.push(b"spare")

    await platform.collection.sweep()
    assert await platform.has(spare)
    platform.later(LONG)
    done = await platform.collection.sweep()

    assert not await platform.has(spare)
    assert not platform.store.has(spare)
    assert (done.blobs, done.freed) == (1, len(b"spare"))


async def test_what_a_removed_image_needed_is_kept_for_a_while_from_then(
    platform: Platform,
) -> None:
    layer = await platform.push(b"layer")
    image = await platform.tag(manifest(b"{}", [b"layer"]))
    platform.later(LONG)

    await platform.registry.remove(HOME, image)
    await platform.collection.sweep()
    assert await platform.has(layer)
    platform.later(LONG)
    await platform.collection.sweep()

    assert not platform.store.has(layer)


async def test_what_another_image_needs_stays_there_alone(platform: Platform) -> None:
    layer = await platform.push(b"layer")
    assert await platform.registry.mount(ANNA, OTHER, layer, HOME)
    await platform.tag(manifest(b"{}", [b"layer"]), OTHER)

    platform.later(LONG)
    await platform.collection.sweep()

    assert (await platform.has(layer), await platform.has(layer, OTHER)) == (False, True)


@pytest.mark.parametrize("how", ["pushed", "mounted", "asked for"])
async def test_what_somebody_is_about_to_need_is_new(platform: Platform, how: str) -> None:
    blob = await platform.push(b"layer")
    await platform.push(b"layer", OTHER)
    platform.later(LONG)

    if how == "pushed":
        await platform.push(b"layer")
    elif how == "mounted":
        assert await platform.registry.mount(ANNA, HOME, blob, OTHER)
    else:
        assert await platform.registry.blob_size(HOME, blob) == len(b"layer")
    await platform.collection.sweep()

    assert await platform.has(blob)
    assert not await platform.has(blob, OTHER)


async def test_one_upload_is_brought_by_one_request_at_a_time(platform: Platform) -> None:
    upload = await platform.registry.uploads.begin(ANNA, HOME)
    incoming = await platform.registry.uploads.go_on(upload, "sha256")

    with pytest.raises(RegistryError) as refused:
        await platform.registry.uploads.go_on(upload, "sha256")

    assert (refused.value.status, refused.value.code) == (409, "BLOB_UPLOAD_INVALID")
    incoming.close()
    (await platform.registry.uploads.go_on(upload, "sha256")).close()


async def test_an_upload_that_nothing_comes_to_ends(platform: Platform) -> None:
    idle = await platform.registry.uploads.begin(ANNA, HOME)
    platform.later(LONG)
    begun = await platform.registry.uploads.begin(ANNA, HOME)

    done = await platform.collection.sweep()

    assert done.uploads == 1
    with pytest.raises(RegistryError, match="not found"):
        await platform.registry.uploads.find(HOME, idle.id)
    assert await platform.registry.uploads.find(HOME, begun.id) == begun


async def test_what_a_crash_left_goes_too(platform: Platform, tmp_path: Path) -> None:
    known = await platform.push(b"known")
    await platform.tag(manifest(b"{}", [b"known"]))
    # A push that was placed, and whose transaction was never committed; and one just now.
    lost, new = digest_of(b"lost"), digest_of(b"new")
    for content in (b"lost", b"new"):
        (tmp_path / "registry" / "uploads" / "x").write_bytes(content)
        if content == b"new":
            platform.later(LONG)
        platform.store.place("x", digest_of(content))

    await platform.collection.sweep()

    assert [platform.store.has(each) for each in (known, lost, new)] == [True, False, True]


@pytest.mark.parametrize("how", ["tag moved", "tag removed", "pushed by digest"])
async def test_an_image_that_nothing_leads_to_goes_after_a_while(
    platform: Platform, how: str
) -> None:
    layer = await platform.push(b"layer")
    content = manifest(b"{}", [b"layer"])
    await platform.tag(content, tag=None if how == "pushed by digest" else "v1")
    if how != "pushed by digest":
        platform.later(LONG)
    if how == "tag moved":
        await platform.tag(manifest(b"other", []))
    elif how == "tag removed":
        await platform.registry.remove(HOME, "v1")

    await platform.collection.sweep()
    assert digest_of(content) in await platform.images()
    platform.later(LONG)
    done = await platform.collection.sweep()

    assert done.images == 1
    assert digest_of(content) not in await platform.images()
    assert not platform.store.has(layer)


@pytest.mark.parametrize("how", ["pulled", "looked at", "pushed again"])
async def test_an_image_that_somebody_asks_for_is_new(platform: Platform, how: str) -> None:
    content = manifest(b"{}", [])
    image = await platform.tag(content, tag=None)
    platform.later(LONG)

    if how == "pulled":
        await platform.registry.manifest(HOME, image)
    elif how == "looked at":
        await platform.registry.look_at_manifest(HOME, image)
    else:
        await platform.tag(content, tag=None)
    await platform.collection.sweep()

    assert await platform.images() == {image}


async def test_parts_of_an_index_stay_as_long_as_it_does(platform: Platform) -> None:
    part = manifest(b"{}", [])
    inner = index([part])
    outer = index([inner])
    for content, kind in ((part, MANIFEST), (inner, INDEX)):
        await platform.tag(content, tag=None, kind=kind)
    await platform.tag(outer, kind=INDEX)

    platform.later(LONG)
    await platform.collection.sweep()
    assert await platform.images() == {digest_of(one) for one in (part, inner, outer)}
    await platform.registry.remove(HOME, "v1")
    platform.later(LONG)
    await platform.collection.sweep()

    assert await platform.images() == set()


async def test_parts_of_an_index_that_was_removed_are_kept_for_a_while(platform: Platform) -> None:
    part = manifest(b"{}", [])
    await platform.tag(part, tag=None)
    whole = await platform.tag(index([part]), kind=INDEX)
    platform.later(LONG)

    await platform.registry.remove(HOME, whole)
    await platform.collection.sweep()
    assert await platform.images() == {digest_of(part)}
    platform.later(LONG)
    await platform.collection.sweep()

    assert await platform.images() == set()


async def test_what_is_about_an_image_goes_with_it(platform: Platform) -> None:
    image = manifest(b"{}", [])
    about = manifest(b"signature", [], subject=described(image, MANIFEST))
    about_that = manifest(b"more", [], subject=described(about, MANIFEST))
    of_none = manifest(b"lost", [], subject=described(b"never pushed", MANIFEST))
    for content in (about_that, about, of_none):
        await platform.tag(content, tag=None)
    await platform.tag(image)

    platform.later(LONG)
    await platform.collection.sweep()
    assert await platform.images() == {digest_of(one) for one in (image, about, about_that)}
    await platform.registry.remove(HOME, digest_of(image))
    await platform.collection.sweep()
    assert await platform.images() == {digest_of(one) for one in (about, about_that)}
    platform.later(LONG)
    await platform.collection.sweep()

    assert await platform.images() == set()


async def test_pushes_of_what_is_removed_and_collected_at_the_same_moment_are_right(
    platform: Platform,
) -> None:
    """Else a row that goes while it is needed is an error that nobody can do anything about."""
    part = manifest(b"{}", [b"layer"])
    whole = index([part])

    async def push(tag: str) -> None:
        for _ in range(20):
            await platform.push(b"layer")
            await platform.tag(part, tag=None)
            await platform.tag(whole, tag=tag, kind=INDEX)

    async def remove(reference: str) -> None:
        for _ in range(40):
            try:
                await platform.registry.remove(HOME, reference)
            except RegistryError as error:
                if error.status != 404:
                    raise

    async def collect() -> None:
        for _ in range(10):
            await platform.collection.sweep()

    references = (digest_of(whole), digest_of(part), "v1")
    await asyncio.gather(push("v1"), push("v2"), collect(), *map(remove, references))

    await push("v1")
    assert (await platform.registry.manifest(HOME, "v1")).content == whole
    platform.later(LONG)
    await platform.collection.sweep()
    assert await platform.images() == {digest_of(whole), digest_of(part)}
    assert await platform.has(digest_of(b"layer"))


async def test_what_is_pushed_whole_has_its_blobs_whatever_is_collected_meanwhile(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a manifest is kept whose blobs went between the look at them and its own transaction."""
    content = manifest(b"{}", [b"layer"])
    for blob in (b"{}", b"layer"):
        await platform.push(blob)
    write = platform.database.write

    async def collect_first(change: Callable[[Connection], object]) -> object:
        monkeypatch.undo()
        platform.later(LONG)
        await platform.collection.sweep()
        assert not platform.store.has(digest_of(b"layer"))
        return await write(change)

    monkeypatch.setattr(platform.database, "write", collect_first)
    with pytest.raises(MissingBlobs) as caught:
        await platform.tag(content, whole=True)

    digests = {digest_of(b"{}"), digest_of(b"layer")}
    assert {each["digest"] for each in caught.value.details} == digests
    assert await platform.images() == set()
    for blob in (b"{}", b"layer"):
        await platform.push(blob)
    await platform.tag(content, whole=True)
    platform.later(LONG)
    await platform.collection.sweep()
    assert [await platform.has(digest) for digest in digests] == [True, True]


async def test_whole_pushes_and_collections_at_the_same_moment_are_right(
    platform: Platform,
) -> None:
    content = manifest(b"{}", [b"layer"])

    async def push(tag: str) -> None:
        for _ in range(15):
            while True:
                try:
                    await platform.tag(content, tag=tag, whole=True)
                    break
                except MissingBlobs as missing:
                    for each in missing.details:
                        blob = next(b for b in (b"{}", b"layer") if digest_of(b) == each["digest"])
                        await platform.push(blob)
            for blob in (b"{}", b"layer"):
                assert await platform.has(digest_of(blob))
            await asyncio.gather(remove(tag), collect())

    async def remove(tag: str) -> None:
        await platform.registry.remove(HOME, tag)

    async def collect() -> None:
        for _ in range(2):
            await platform.database.write(age)
            await platform.collection.sweep()

    def age(connection: Connection) -> None:
        """Nothing has been touched for long, so that whatever may go does."""
        for table in ("registry_links", "registry_manifests"):
            change = f"UPDATE {table} SET touched_at = touched_at - :by"
            connection.execute(text(change), {"by": LONG // timedelta(microseconds=1)})

    await asyncio.gather(push("v1"), push("v2"), collect())


async def test_the_census_lists_all_that_is_on_the_disk(platform: Platform, tmp_path: Path) -> None:
    await platform.push(b"spare")
    await platform.registry.uploads.begin(ANNA, HOME)
    (tmp_path / "registry" / "trash" / f"{digest_of(b'gone')}.1").write_bytes(b"gone")

    listed = [one async for one in platform.census.all()]

    found = sum(file.stat().st_size for file in tmp_path.rglob("registry/**/*") if file.is_file())
    assert sum(one.size for one in listed) == found
    assert [one.size for one in listed if one.why is WhyStored.GARBAGE] == [4]
