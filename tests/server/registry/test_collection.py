"""What an image needs stays; the rest goes when it has not been needed for a while."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from neuro.domain.permissions import owner_permissions
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.collection import Collection
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import Repository
from neuro.server.registry.service import RegistryService
from tests.server.registry.client import MANIFEST, digest_of, manifest

GRACE = timedelta(hours=24)
LONG = GRACE + timedelta(minutes=1)
HOME, OTHER = Repository("anna/image"), Repository("anna/other")
ANNA = Identity("anna", Grants.of(owner_permissions("anna", "default")), "")


class Platform:
    """A registry and its collection, whose past can be put further back."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.store = BlobStore(folder)
        self.registry = RegistryService(database, self.store, "default", grace=GRACE)
        self.collection = Collection(database, self.store, GRACE)
        self._database = database
        self._folder = folder

    def later(self, by: timedelta) -> None:
        """Let all that was done until now be so much longer ago."""
        for file in self._folder.rglob("*"):
            made = file.stat().st_mtime - by.total_seconds()
            os.utime(file, (made, made))

        def shift(connection: Connection) -> None:
            for table in ("registry_links", "registry_uploads"):
                change = f"UPDATE {table} SET touched_at = touched_at - :by"
                connection.execute(text(change), {"by": by // timedelta(microseconds=1)})

        self._database.write_now(shift)

    async def push(self, content: bytes, home: Repository = HOME) -> str:
        """Push a blob."""
        digest = digest_of(content)
        upload = await self.registry.begin_upload(ANNA, home)
        incoming = await self.registry.continue_upload(upload, "sha256")
        incoming.write([content])
        await self.registry.finish_upload(home, incoming, digest)
        incoming.close()
        return digest

    async def tag(self, content: bytes, home: Repository = HOME, tag: str = "v1") -> str:
        """Push a manifest."""
        return (await self.registry.put_manifest(home, tag, [], content, MANIFEST)).digest

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
    await platform.registry.close()
    await platform.collection.close()
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
    upload = await platform.registry.begin_upload(ANNA, HOME)
    incoming = await platform.registry.continue_upload(upload, "sha256")

    with pytest.raises(RegistryError) as refused:
        await platform.registry.continue_upload(upload, "sha256")

    assert (refused.value.status, refused.value.code) == (409, "BLOB_UPLOAD_INVALID")
    incoming.close()
    (await platform.registry.continue_upload(upload, "sha256")).close()


async def test_an_upload_that_nothing_comes_to_ends(platform: Platform) -> None:
    idle = await platform.registry.begin_upload(ANNA, HOME)
    platform.later(LONG)
    begun = await platform.registry.begin_upload(ANNA, HOME)

    done = await platform.collection.sweep()

    assert done.uploads == 1
    with pytest.raises(RegistryError, match="not found"):
        await platform.registry.upload(HOME, idle.id)
    assert await platform.registry.upload(HOME, begun.id) == begun


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
