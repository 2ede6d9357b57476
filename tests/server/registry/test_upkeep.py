"""Owners say which tags stay, administrators how much there may be, and the disk is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from neuro.domain.errors import Conflict, InvalidInput
from neuro.domain.image_upkeep import ImageRules
from neuro.server.registry import rule_tables
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import Repository
from neuro.server.registry.quotas import Quotas
from neuro.server.registry.rules import KeptTag, check_rules, outdated
from neuro.server.registry.scrub import Scrub
from neuro.server.registry.service import RegistryService
from neuro.server.registry.upkeep import Upkeep
from tests.server.registry.client import INDEX, MANIFEST, digest_of, index, manifest
from tests.server.registry.test_collection import ANNA, HOME, OTHER, Platform
from tests.server.registry.test_collection import platform as platform

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OWNER = Repository("anna")


def _tags() -> list[KeptTag]:
    """Of each day one: ``v1`` is a day old; of all, ``v5`` was pulled a moment ago."""
    pulled = {5: NOW}
    days = range(1, 6)
    return [KeptTag(f"v{n}", NOW - timedelta(days=n), pulled.get(n)) for n in days]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (ImageRules(), []),
        (ImageRules(immutable=["v*"]), []),
        (ImageRules(keep_last=2), ["v3", "v4", "v5"]),
        (ImageRules(keep_last=2, keep_tags=["v1"]), ["v4", "v5"]),
        (ImageRules(keep_last=2, immutable=["v[45]"]), ["v3"]),
        (ImageRules(keep_seconds=86_400 * 2.5), ["v3", "v4"]),
        (ImageRules(keep_seconds=86_400 * 2.5, keep_last=3), ["v4"]),
        (ImageRules(keep_last=99), []),
    ],
)
def test_rules_say_which_tags_go(rules: ImageRules, gone: list[str]) -> None:
    check_rules(rules)

    assert sorted(outdated(_tags(), rules, NOW)) == gone


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (ImageRules(keep_last=0), "keep_last is 0"),
        (ImageRules(keep_seconds=float("nan")), "keep_seconds is nan"),
        (ImageRules(keep_tags=["v*"]), "give keep_last"),
        (ImageRules(immutable=["v\n"]), "not a pattern"),
        (ImageRules(immutable=[""]), "not a pattern"),
        (ImageRules(immutable=["v"] * 21), "20 patterns"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules: ImageRules, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_rules(rules)


async def test_a_sweep_follows_the_rules_that_are_nearest(
    platform: Platform, upkeep: Upkeep
) -> None:
    for home in (HOME, OTHER):
        for tag in ("v1", "v2", "v3"):
            await platform.tag(manifest(tag.encode(), []), home, tag)
            platform.later(timedelta(minutes=1))
    await upkeep.set_rules(OWNER, ImageRules(keep_last=1))
    await upkeep.set_rules(OTHER, ImageRules(keep_last=2))

    assert await upkeep.sweep() == 3

    for home, left in ((HOME, ["v3"]), (OTHER, ["v2", "v3"])):
        assert await platform.registry.tags(home, "", 10) == left
    assert (await upkeep.rules(Repository("anna/image/deep"))).path == "anna"
    await upkeep.remove_rules(OTHER)
    assert (await upkeep.rules(OTHER)).rules == ImageRules(keep_last=1)


async def test_an_immutable_tag_is_neither_moved_nor_removed(
    platform: Platform, upkeep: Upkeep
) -> None:
    await upkeep.set_rules(OWNER, ImageRules(immutable=["v*"]))
    first, second = manifest(b"1", []), manifest(b"2", [])
    image = await platform.tag(first, tag="v1")
    await platform.tag(first, tag="v1")  # is no move

    for change in (
        platform.tag(second, tag="v1"),
        platform.registry.put_manifest(HOME, digest_of(second), ["latest", "v1"], second, MANIFEST),
        platform.registry.remove(HOME, "v1"),
        platform.registry.remove(HOME, image),
    ):
        with pytest.raises(RegistryError, match="'v1' of 'anna/image' is immutable") as refused:
            await change
        assert (refused.value.status, refused.value.code) == (403, "DENIED")

    assert (await platform.registry.look_at_manifest(HOME, "v1")).digest == image
    assert await platform.registry.tags(HOME, "", 10) == ["v1"]
    await platform.tag(second, tag="latest")
    await platform.registry.remove(HOME, "latest")


async def test_no_part_of_what_an_immutable_tag_leads_to_is_removed(
    platform: Platform, upkeep: Upkeep
) -> None:
    await upkeep.set_rules(OWNER, ImageRules(immutable=["v*"]))
    image, spare = manifest(b"1", []), manifest(b"2", [])
    inner = index([image])
    outer = index([inner, image])
    parts = [await platform.tag(image, tag=None), await platform.tag(inner, tag=None, kind=INDEX)]
    await platform.tag(outer, tag="v1", kind=INDEX)
    await platform.tag(spare, tag=None)
    await platform.tag(index([spare]), tag="latest", kind=INDEX)

    for part in parts:
        with pytest.raises(RegistryError, match="'v1' of 'anna/image' is immutable"):
            await platform.registry.remove(HOME, part)

    assert set(parts) <= await platform.images()
    await platform.registry.remove(HOME, digest_of(spare))


async def test_an_image_that_too_many_indexes_lead_to_stays(
    platform: Platform, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_tables, "MAX_INDEXES", 2)
    await upkeep.set_rules(OWNER, ImageRules(immutable=["v*"]))
    below = manifest(b"1", [])
    images = [await platform.tag(below, tag=None)]
    for _ in range(3):
        below = index([below])
        images.append(await platform.tag(below, tag=None, kind=INDEX))

    with pytest.raises(RegistryError, match="More than 2 indexes lead to") as refused:
        await platform.registry.remove(HOME, images[0])
    assert (refused.value.status, refused.value.code) == (403, "DENIED")

    for image in images[1:]:
        await platform.registry.remove(HOME, image)
    await platform.registry.remove(HOME, images[0])


async def test_tags_tell_when_they_were_pushed_and_pulled(
    platform: Platform, upkeep: Upkeep
) -> None:
    await platform.push(b"layer")
    await platform.tag(manifest(b"{}", [b"layer"]))
    await platform.registry.look_at_manifest(HOME, "v1")

    [tag] = await upkeep.tags(HOME, "", 10)
    assert (tag.pulled_at, tag.size) == (None, len(b"layer"))
    await platform.registry.manifest(HOME, "v1")
    [tag] = await upkeep.tags(HOME, "", 10)
    assert tag.pulled_at is not None
    assert tag.pulled_at >= tag.pushed_at
    assert await upkeep.tags(HOME, "v1", 10) == []


async def test_an_image_is_as_large_as_what_its_repository_had_when_it_was_pushed(
    platform: Platform, upkeep: Upkeep
) -> None:
    await platform.push(b"elsewhere", OTHER)
    await platform.push(b"both")
    small, large = manifest(b"{}", [b"both", b"elsewhere"]), manifest(b"{}", [b"both", b"later"])
    await platform.tag(small, tag="small")
    await platform.tag(large, tag="large")
    both = index([small, large])
    await platform.tag(both, tag="both", kind=INDEX)
    await platform.tag(index([both, small]), tag="nested", kind=INDEX)

    async def sizes() -> dict[str, int]:
        return {tag.tag: tag.size for tag in await upkeep.tags(HOME, "", 10)}

    # What only another repository has counts nowhere: not even whether it is there is told.
    assert await sizes() == {"small": 4, "large": 4, "both": 8, "nested": 12}
    await platform.push(b"later")
    assert (await sizes())["large"] == 4
    await platform.tag(large, tag="large")
    assert await sizes() == {"small": 4, "large": 9, "both": 8, "nested": 12}
    await platform.tag(both, tag="both", kind=INDEX)
    assert (await sizes())["both"] == 13


async def test_indexes_in_indexes_have_no_size_that_no_column_can_keep(
    platform: Platform, upkeep: Upkeep
) -> None:
    parts = [manifest(str(number).encode(), []) for number in range(2)]
    for part in parts:
        await platform.tag(part, tag=None)
    huge = f"UPDATE registry_manifests SET size = {(1 << 63) - 1}"
    await platform.database.write(lambda c: c.execute(text(huge)))

    await platform.tag(index(parts), tag="v1", kind=INDEX)

    assert [tag.size for tag in await upkeep.tags(HOME, "", 10)] == [(1 << 63) - 1]


async def test_a_push_over_the_quota_is_refused_and_leaves_nothing(
    platform: Platform, limited: RegistryService
) -> None:
    upload = await limited.uploads.begin(ANNA, HOME)
    incoming = await limited.uploads.go_on(upload, "sha256")
    incoming.write([b"x" * 1000])
    await limited.uploads.finish(HOME, incoming, digest_of(b"x" * 1000))
    incoming.close()

    # The one says how large it is, the other grows.
    with pytest.raises(RegistryError, match="does not fit") as refused:
        await limited.uploads.begin(ANNA, OTHER, size=25)
    assert (refused.value.status, refused.value.code) == (403, "DENIED")
    upload = await limited.uploads.begin(ANNA, OTHER)
    incoming = await limited.uploads.go_on(upload, "sha256")
    incoming.write([b"y" * 20])
    with pytest.raises(RegistryError, match="this push is larger"):
        incoming.write([b"y" * 5])
    incoming.close()

    # What is there takes nothing in another repository, and its manifest is something.
    assert await limited.mount(ANNA, OTHER, digest_of(b"x" * 1000), HOME)
    with pytest.raises(RegistryError, match="does not fit"):
        await limited.put_manifest(HOME, "v1", [], manifest(b"{}", []), MANIFEST)
    assert not list(platform.store.uploads())
    used = (await limited.quota(OWNER)).used
    assert used == 1000
    assert (await limited.set_quota(OWNER, 0)).size is None
    await limited.put_manifest(HOME, "v1", [], manifest(b"{}", []), MANIFEST)
    assert (await limited.set_quota(OWNER, None)).size == 1024


async def test_uploads_that_have_not_ended_count(
    platform: Platform, limited: RegistryService
) -> None:
    for size in (900, 100):
        upload = await limited.uploads.begin(ANNA, HOME)
        incoming = await limited.uploads.go_on(upload, "sha256")
        incoming.write([b"x" * size])
        incoming.close()

    upload = await limited.uploads.begin(ANNA, HOME)
    incoming = await limited.uploads.go_on(upload, "sha256")
    with pytest.raises(RegistryError, match="uploads that have not ended included"):
        incoming.write([b"x" * 100])
    incoming.close()


async def test_a_blob_that_has_rotted_is_found_and_can_be_pushed_again(
    platform: Platform, tmp_path: Path
) -> None:
    rotten, sound = await platform.push(b"rotten"), await platform.push(b"sound")
    await platform.tag(manifest(b"{}", [b"rotten", b"sound"]))
    [file] = (tmp_path / "registry").rglob(rotten.partition(":")[2])
    file.write_bytes(b"r0tten")
    scrub = Scrub(platform.database, platform.store, rate=1 << 40)

    found = {one.digest: one async for one in scrub.all()}

    assert [found[each].is_rotten for each in (rotten, sound)] == [True, False]
    assert found[rotten].of == "anna/image:v1"
    with pytest.raises(RegistryError, match="push it again"):
        await platform.registry.blob_size(HOME, rotten)
    await platform.push(b"rotten")
    assert not any([one.is_rotten async for one in scrub.all()])
    assert await platform.has(rotten)
    await scrub.close()


async def test_one_scrub_goes_at_a_time(platform: Platform) -> None:
    await platform.push(b"a")
    scrub = Scrub(platform.database, platform.store)
    first = scrub.all()
    await anext(first)

    with pytest.raises(Conflict, match="already"):
        await anext(scrub.all())

    await first.aclose()
    assert [one.size async for one in scrub.all()] == [1]
    await scrub.close()


@pytest.fixture
def upkeep(platform: Platform) -> Upkeep:
    return Upkeep(platform.database)


@pytest.fixture
async def limited(platform: Platform) -> AsyncIterator[RegistryService]:
    """The same registry, where everybody may have 1024 bytes."""
    quotas = Quotas(1024)
    limited = RegistryService(platform.database, platform.store, "default", quotas=quotas)
    yield limited
    await limited.close()
