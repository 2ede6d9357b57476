"""Names of images, and who is told of which."""

from __future__ import annotations

import json

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.permissions import Action
from tests.server.registry.client import (
    INDEX,
    MANIFEST,
    Answer,
    Registry,
    described,
    digest_of,
    index,
    manifest,
)
from tests.server_process import ServerProcess


async def test_a_stranger_is_told_how_to_log_in(
    server: ServerProcess, session: aiohttp.ClientSession
) -> None:
    for token in (None, "not.a.token"):
        answer = await Registry(session, server.url, token).ask("GET", "/v2/")

        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_what_one_may_not_read_is_as_if_absent(
    registry: Registry, alices: Registry, home: str, method: str
) -> None:
    await registry.push_image(home, "v1", [])
    content = manifest(b"{}", []) if method == "PUT" else None
    answers = []

    for name in (home, f"{home}-absent"):
        path = f"/v2/{name}/manifests/v1"
        answers.append(await alices.ask(method, path, content, Content_Type="text/plain"))

    there, absent = answers
    assert there.status == absent.status == 404
    assert there.body.replace(home.encode(), b"") == absent.body.replace(
        f"{home}-absent".encode(), b""
    )


async def test_who_may_read_may_pull_and_not_push(
    registry: Registry, alices: Registry, home: str, client: Client
) -> None:
    await registry.push_image(home, "v1", [b"layer"])

    await client.permissions.share(f"image://default/{home}", "alice", Action.READ)

    assert (await alices.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    refused = await alices.ask("POST", f"/v2/{home}/blobs/uploads/")
    assert (refused.status, refused.code) == (403, "DENIED")
    listed = json.loads((await alices.ask("GET", "/v2/_catalog")).body)["repositories"]
    assert home in listed
    assert all(name == home or name.startswith("alice/") for name in listed)


async def test_a_whole_push_does_not_tell_what_others_have(
    registry: Registry, alices: Registry, home: str
) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    content = (await registry.ask("GET", f"/v2/{home}/manifests/v1")).body
    own = f"alice/{home.rpartition('/')[2]}"

    async def put(name: str, content: bytes) -> Answer:
        path = f"/v2/{name}/manifests/v1?whole=1"
        return await alices.ask("PUT", path, content, Content_Type=MANIFEST)

    theirs = await put(own, content)
    nobodys = await put(own, manifest(b"never pushed", [b"nor this"]))

    for answer in (theirs, nobodys):
        assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        assert len(json.loads(answer.body)["errors"]) == 2
    assert theirs.message == nobodys.message
    for blob in json.loads(content)["layers"]:
        assert (await alices.ask("HEAD", f"/v2/{own}/blobs/{blob['digest']}")).status == 404


async def test_a_whole_push_to_what_one_may_not_write_tells_nothing(
    registry: Registry, alices: Registry, home: str, client: Client
) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    content = (await registry.ask("GET", f"/v2/{home}/manifests/v1")).body
    path = f"/v2/{home}/manifests/v2?whole=1"

    hidden = await alices.ask("PUT", path, content, Content_Type=MANIFEST)
    await client.permissions.share(f"image://default/{home}", "alice", Action.READ)
    refused = await alices.ask("PUT", path, content, Content_Type=MANIFEST)

    assert (hidden.status, hidden.code) == (404, "NAME_UNKNOWN")
    assert (refused.status, refused.code) == (403, "DENIED")
    for answer in (hidden, refused):
        assert b"sha256" not in answer.body


async def test_the_catalog_goes_on_at_the_next_page(registry: Registry, home: str) -> None:
    names = [f"{home}/{name}" for name in ("a", "b", "c", "d", "e")]
    for name in names:
        await registry.push_image(name, "v1", [])

    path, found = "/v2/_catalog?n=2", list[str]()
    while path:
        answer = await registry.ask("GET", path)
        page = json.loads(answer.body)["repositories"]
        assert len(page) <= 2
        found += page
        path = answer.headers.get("Link", "<>").partition("<")[2].partition(">")[0]

    assert [name for name in found if name.startswith(f"{home}/")] == names
    assert found == sorted(found)


async def test_tags_go_on_at_the_next_page(registry: Registry, home: str) -> None:
    digest = await registry.push_image(home, "v0", [])
    content = (await registry.ask("GET", f"/v2/{home}/manifests/v0")).body
    for tag in ("v1", "v2"):
        assert await registry.push_manifest(home, tag, content) == digest

    first = await registry.ask("GET", f"/v2/{home}/tags/list?n=2")
    following = first.headers["Link"].partition("<")[2].partition(">")[0]
    second = await registry.ask("GET", following)

    assert json.loads(first.body) == {"name": home, "tags": ["v0", "v1"]}
    assert json.loads(second.body)["tags"] == ["v2"]
    assert "Link" not in second.headers
    nothing = await registry.ask("GET", f"/v2/{home}/tags/list?n=0")
    assert json.loads(nothing.body)["tags"] == []


async def test_a_tag_goes_alone_and_an_image_with_its_tags(registry: Registry, home: str) -> None:
    digest = await registry.push_image(home, "v1", [])
    content = (await registry.ask("GET", f"/v2/{home}/manifests/v1")).body
    await registry.push_manifest(home, "v2", content)

    assert (await registry.ask("DELETE", f"/v2/{home}/manifests/v1")).status == 202
    assert (await registry.ask("GET", f"/v2/{home}/manifests/{digest}")).status == 200
    assert (await registry.ask("DELETE", f"/v2/{home}/manifests/{digest}")).status == 202
    assert (await registry.ask("GET", f"/v2/{home}/manifests/v2")).code == "MANIFEST_UNKNOWN"


async def test_an_index_and_what_it_lists_are_pushed_each_for_itself(
    registry: Registry, home: str
) -> None:
    content = manifest(b"{}", [b"layer"])

    digest = await registry.push_manifest(home, "all", index([content]), INDEX)

    found = await registry.ask("GET", f"/v2/{home}/manifests/all")
    assert (found.headers["Docker-Content-Digest"], found.body) == (digest, index([content]))
    [part] = json.loads(found.body)["manifests"]
    missing = await registry.ask("GET", f"/v2/{home}/manifests/{part['digest']}")
    assert missing.code == "MANIFEST_UNKNOWN"


async def test_referrers_of_nothing_are_none(registry: Registry, home: str) -> None:
    answer = await registry.ask("GET", f"/v2/{home}/referrers/sha256:{64 * '0'}")

    assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])


async def test_a_page_of_referrers_is_no_larger_than_what_clients_take(
    registry: Registry, home: str
) -> None:
    """Each may be as large as a manifest, and there may be any number."""
    about = described(b"subject", MANIFEST)
    pushed = {
        await registry.push_manifest(home, digest_of(content), content)
        for name in "abc"
        for content in [manifest(b"{}", [], subject=about, annotations={name: "x" * (5 << 19)})]
    }

    pages = [await registry.ask("GET", f"/v2/{home}/referrers/{about['digest']}")]
    while "Link" in pages[-1].headers:
        place = pages[-1].headers["Link"].partition("<")[2].partition(">")[0]
        pages.append(await registry.ask("GET", place))

    assert [len(page.body) < 4 << 20 for page in pages] == [True, True, True]
    assert pushed == {one["digest"] for page in pages for one in json.loads(page.body)["manifests"]}


async def test_a_page_leads_to_the_next_whatever_else_is_asked(
    registry: Registry, home: str
) -> None:
    for tag in ("v1", "v2"):
        await registry.push_manifest(home, tag, manifest(b"{}", []))

    answer = await registry.ask("GET", f"/v2/{home}/tags/list?n=1&a%0D%0Ab=%26")

    assert answer.status == 200
    assert answer.headers["Link"] == (
        f'</v2/{home}/tags/list?n=1&a%0D%0Ab=%26&last=v1>; rel="next"'
    )


async def test_a_type_that_no_database_keeps_is_refused(registry: Registry, home: str) -> None:
    content = manifest(b"{}", [], artifactType="a\0b")

    answer = await registry.ask("PUT", f"/v2/{home}/manifests/v1", content, Content_Type=MANIFEST)

    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


async def test_who_asks_for_the_size_of_an_image_pulls_nothing(
    registry: Registry, home: str, client: Client
) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    image = client.images.image(f"image:/{home}:v1")

    async def pulled_at() -> object:
        [tag] = [tag async for tag in client.images.tags_in_full(image)]
        return tag.pulled_at

    assert await client.images.size(image) > len(b"layer")
    assert await pulled_at() is None
    assert (await registry.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    assert await pulled_at() is not None
