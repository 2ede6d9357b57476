"""Images of public registries that come through the platform's own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.errors import NotFound, Unavailable
from neuro.domain.image_upkeep import ImageRules, ImageRulesInForce
from neuro.domain.uris import parse_uri
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.fetches import Fetch
from neuro.server.registry.manifest_tables import find_manifest
from neuro.server.registry.mirrors import Mirror, Mirrors
from neuro.server.registry.names import Repository
from tests.engines.small_registry import INDEX, SmallRegistry, running
from tests.server.registry.client import Registry, digest_of
from tests.server_process import SETTINGS, ServerProcess, running_server

LARGE = b"0123456789abcdef" * (1 << 18)  # 4 MiB


@pytest.fixture
def upstream() -> Iterator[SmallRegistry]:
    """A public registry."""
    registry = SmallRegistry()
    with running(registry):
        yield registry


@pytest.fixture
def mirroring(upstream: SmallRegistry, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server through which the images of the public registry come."""
    host = upstream.address.removeprefix("http://")
    table = f'\n[[images.mirrors]]\nregistry = "docker.io"\nhost = "{host}"\ninsecure = true\n'
    table += 'user = "me"\npassword = "s3cret"\nsize = "64M"\n'
    with running_server(tmp_path / "data", settings=SETTINGS + table) as server:
        yield server


@pytest.fixture
async def anna(mirroring: ServerProcess, session: aiohttp.ClientSession) -> Registry:
    """Somebody who is nobody special."""
    async with Client.connect(mirroring.url, mirroring.token) as client:
        await client.users.add("anna")
        token = await client.users.create_token("anna")
    return Registry(session, mirroring.url, token.token)


async def _get(registry: Registry, path: str) -> Any:
    return await registry.ask("GET", f"/v2/docker.io/{path}")


def _asked(upstream: SmallRegistry, part: str) -> int:
    return sum(part in path for path, _ in upstream.requests)


async def test_an_image_is_brought_once_and_kept(upstream: SmallRegistry, anna: Registry) -> None:
    upstream.password = "s3cret"
    image = upstream.image("library/debian", LARGE, tag="12")
    upstream.index("library/debian", ("linux/amd64", image), tag="all")

    for _ in range(2):
        for name in ("debian", "library/debian"):
            assert (await _get(anna, f"{name}/manifests/12")).status == 200
    found = await _get(anna, "library/debian/manifests/all")
    assert found.headers["Content-Type"] == INDEX
    [part] = json.loads(found.body)["manifests"]
    content = await _get(anna, f"library/debian/manifests/{part['digest']}")
    assert digest_of(content.body) == image["digest"]
    told = json.loads(content.body)
    for one in (told["config"], *told["layers"]):
        path = f"library/debian/blobs/{one['digest']}"
        head = await anna.ask("HEAD", f"/v2/docker.io/{path}")
        assert (head.status, head.headers["Content-Length"]) == (200, str(one["size"]))
        for _ in range(2):
            blob = await _get(anna, path)
            assert (blob.status, digest_of(blob.body)) == (200, one["digest"])
        assert _asked(upstream, one["digest"]) == 1

    shown = {headers.get("Authorization", "") for _, headers in upstream.requests}
    pair = "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert shown <= {"", "Bearer t1", "Bearer t2", pair}  # One for each name of the repository.


async def test_many_who_wait_share_one_download(upstream: SmallRegistry, anna: Registry) -> None:
    upstream.image("library/debian", LARGE, tag="12")
    manifest = json.loads((await _get(anna, "library/debian/manifests/12")).body)
    [layer] = manifest["layers"]

    got = await asyncio.gather(
        *(_get(anna, f"library/debian/blobs/{layer['digest']}") for _ in range(8))
    )

    assert {digest_of(one.body) for one in got} == {layer["digest"]}
    assert _asked(upstream, layer["digest"]) == 1


async def test_a_layer_that_is_cut_goes_on_where_it_ended(
    upstream: SmallRegistry, anna: Registry
) -> None:
    upstream.image("library/debian", os.urandom(1 << 20), tag="12")
    upstream.cut_after = 300_000
    [layer] = json.loads((await _get(anna, "library/debian/manifests/12")).body)["layers"]

    blob = await _get(anna, f"library/debian/blobs/{layer['digest']}")

    assert digest_of(blob.body) == layer["digest"]
    assert _asked(upstream, layer["digest"]) == 4


async def test_a_layer_that_is_not_what_its_digest_says_never_ends_well(
    upstream: SmallRegistry, anna: Registry
) -> None:
    upstream.image("library/debian", LARGE, tag="12")
    [layer] = json.loads((await _get(anna, "library/debian/manifests/12")).body)["layers"]
    right = upstream.blobs[layer["digest"]]
    upstream.blobs[layer["digest"]] = right[:-1] + bytes([right[-1] ^ 1])
    path = f"library/debian/blobs/{layer['digest']}"

    with pytest.raises(aiohttp.ClientError):
        await _get(anna, path)
    upstream.blobs[layer["digest"]] = right

    assert (await _get(anna, path)).body == right


async def test_a_tag_is_what_it_was_while_the_registry_is_away(
    upstream: SmallRegistry, database: Database, tmp_path: Path
) -> None:
    host = upstream.address.removeprefix("http://")
    mirror = Mirror("docker.io", host, insecure=True)
    store = BlobStore(tmp_path / "images")
    mirrors = Mirrors(database, store, {"docker.io": mirror}, tag_seconds=0.0)
    debian = Repository("docker.io/library/debian")

    async def tag() -> str | None:
        await mirrors.bring_manifest(debian, "12")
        found = await database.read(lambda c: find_manifest(c, debian.path, "12"))
        return found and found.digest

    first = upstream.image("library/debian", "a", tag="12")
    assert await tag() == first["digest"]
    second = upstream.image("library/debian", "b", tag="12")
    assert await tag() == second["digest"]
    upstream.fails["/v2/"] = 503, b'{"errors": [{"message": "too busy"}]}'
    assert await tag() == second["digest"]
    with pytest.raises(Unavailable, match="too busy"):
        await mirrors.bring_manifest(debian, "13")
    await mirrors.close()


@pytest.mark.parametrize(("seconds", "questions"), [(60.0, 1), (0.0, 2)])
async def test_what_is_not_there_is_asked_for_once_a_minute(
    upstream: SmallRegistry, database: Database, tmp_path: Path, seconds: float, questions: int
) -> None:
    mirror = Mirror("docker.io", upstream.address.removeprefix("http://"), insecure=True)
    store = BlobStore(tmp_path / "images")
    mirrors = Mirrors(database, store, {"docker.io": mirror}, tag_seconds=seconds)
    upstream.image("library/debian", "a", tag="12")
    debian = Repository("docker.io/library/debian")

    asked, said = set(), set()
    for _ in range(2):
        with pytest.raises(RegistryError) as absent:
            await mirrors.bring_manifest(debian, "13")
        assert absent.value.status == 404
        said.add(str(absent.value))
        asked.add(_asked(upstream, "/manifests/13"))
    await mirrors.bring_manifest(debian, "12")
    await mirrors.close()

    assert len(said) == 1
    assert len(asked) == questions


async def test_what_is_not_there_is_said_in_the_registrys_words(
    upstream: SmallRegistry, anna: Registry
) -> None:
    upstream.image("library/debian", "a", tag="12")

    absent = await _get(anna, "library/debian/manifests/13")
    assert (absent.status, absent.code) == (404, "MANIFEST_UNKNOWN")
    # A blob that no image needs is nothing that anybody could have brought.
    other = await _get(anna, f"library/debian/blobs/{digest_of(b'x')}")
    assert other.status == 404
    assert _asked(upstream, digest_of(b"x")) == 0


async def test_what_is_coming_takes_of_the_mirrors_size(
    upstream: SmallRegistry, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    download = Fetch.download

    def held(self: Fetch, *given: Any) -> None:
        goes_on.wait()
        download(self, *given)

    monkeypatch.setattr(Fetch, "download", held)
    host = upstream.address.removeprefix("http://")
    mirror = Mirror("docker.io", host, size=5 << 20, insecure=True)
    store = BlobStore(tmp_path / "images")
    mirrors = Mirrors(database, store, {"docker.io": mirror})
    debian = Repository("docker.io/library/debian")

    async def begun(tag: str, size: int) -> Fetch:
        upstream.image("library/debian", os.urandom(size), tag=tag)
        await mirrors.bring_manifest(debian, tag)
        found = await database.read(lambda c: find_manifest(c, debian.path, tag))
        assert found is not None
        [layer] = json.loads(found.content)["layers"]
        fetch = await mirrors.bring_blob(debian, layer["digest"])
        assert fetch is not None
        return fetch

    try:
        first, second = await begun("1", 3 << 20), await begun("2", 3 << 20)
        async with asyncio.timeout(30):
            with pytest.raises(RegistryError, match="this push does not fit"):
                await second.whole()
        assert _asked(upstream, second.digest) == 0
        small = await begun("3", 1 << 10)
    finally:
        goes_on.set()
    await first.whole()
    await small.whole()
    await mirrors.close()


async def test_only_who_is_signed_in_reads_it_and_nobody_pushes_to_it(
    upstream: SmallRegistry,
    anna: Registry,
    mirroring: ServerProcess,
    session: aiohttp.ClientSession,
) -> None:
    upstream.image("library/debian", "a", tag="12")

    stranger = await _get(Registry(session, mirroring.url, None), "library/debian/manifests/12")
    assert stranger.status == 401
    assert upstream.requests == []
    pushed = await anna.ask("POST", "/v2/docker.io/library/debian/blobs/uploads/")
    assert (pushed.status, pushed.code) == (403, "DENIED")


async def test_it_takes_no_more_of_the_disk_than_the_settings_say(
    upstream: SmallRegistry, anna: Registry
) -> None:
    upstream.image("library/large", os.urandom(65 << 20), tag="1")
    [layer] = json.loads((await _get(anna, "library/large/manifests/1")).body)["layers"]

    refused = await _get(anna, f"library/large/blobs/{layer['digest']}")

    assert (refused.status, refused.code) == (403, "DENIED")
    assert _asked(upstream, layer["digest"]) == 0


async def test_rules_that_a_manager_clears_stay_cleared(mirroring: ServerProcess) -> None:
    usual, own = ImageRules(keep_seconds=30 * 86_400.0), ImageRules(keep_last=3)
    mirror = parse_uri("image://default/docker.io")
    debian = parse_uri("image://default/docker.io/library/debian")
    async with Client.connect(mirroring.url, mirroring.token) as client:
        assert await client.images.rules(debian) == ImageRulesInForce(path="docker.io", rules=usual)
        await client.images.set_rules(mirror, own)
        assert await client.images.rules(debian) == ImageRulesInForce(path="docker.io", rules=own)
        await client.images.remove_rules(mirror)
        assert await client.images.rules(debian) == ImageRulesInForce(path="docker.io", rules=usual)
    mirroring.stop()
    mirroring.start()

    async with Client.connect(mirroring.url, mirroring.token) as client:
        assert await client.images.rules(debian) == ImageRulesInForce(path="docker.io", rules=usual)
        with pytest.raises(NotFound):  # No row of them has come back.
            await client.images.remove_rules(mirror)
