"""What is pushed, in one piece, in many, or in none: all of it is there, or nothing."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables, blobs
from neuro.server.registry.blob_tables import UploadRow
from neuro.server.registry.blobs import IMAGES, BlobStore
from neuro.server.registry.errors import MOST_MISSING, RegistryError
from tests.server.registry.client import (
    INDEX,
    MANIFEST,
    Answer,
    Registry,
    digest_of,
    index,
    manifest,
)
from tests.server_process import ServerProcess


async def test_an_image_comes_back_as_it_was_pushed(registry: Registry, home: str) -> None:
    layers = [os.urandom(3 << 20), b""]

    digest = await registry.push_image(home, "v1", layers)

    for reference in ("v1", digest):
        found = await registry.ask("GET", f"/v2/{home}/manifests/{reference}")
        assert (found.status, digest_of(found.body)) == (200, digest)
        assert found.headers["Docker-Content-Digest"] == digest
        assert found.headers["Content-Type"] == MANIFEST
    for layer in layers:
        blob = await registry.ask("GET", f"/v2/{home}/blobs/{digest_of(layer)}")
        assert blob.body == layer


async def test_one_layer_of_two_images_is_there_once(
    registry: Registry, home: str, server: ServerProcess
) -> None:
    layer = os.urandom(1000)

    for name in (home, f"{home}-too"):
        await registry.push_image(name, "v1", [layer])

    name = digest_of(layer).partition(":")[2]
    assert len(list((server.data_dir / "storage" / IMAGES / "blobs").rglob(name))) == 1


async def test_a_part_of_a_blob_can_be_had(registry: Registry, home: str) -> None:
    content = os.urandom(5 << 20)
    path = f"/v2/{home}/blobs/{await registry.push_blob(home, content)}"

    for asked, part in (
        ("bytes=1000000-3999999", content[1_000_000:4_000_000]),
        ("bytes=-5", content[-5:]),
        ("bytes=4000000-", content[4_000_000:]),
    ):
        answer = await registry.ask("GET", path, Range=asked)
        assert (answer.status, answer.body == part) == (206, True), asked
    answer = await registry.ask("GET", path, Range=f"bytes={len(content)}-")
    assert (answer.status, answer.code) == (416, "RANGE_INVALID")


async def test_what_was_cut_off_goes_on_where_it_ended(registry: Registry, home: str) -> None:
    content = os.urandom(6 << 20)
    address = await registry.begin(home)

    _, line = await asyncio.open_connection(*registry.address.removeprefix("http://").split(":"))
    head = f"PATCH {address} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    line.write(head.encode() + content[: 5 << 20])
    while not await _last_byte(registry, address):
        pass  # Until the server has begun with it: only then is it alone with the upload.
    line.close()
    await line.wait_closed()
    probe = await registry.ask("PATCH", address, b"x", Content_Range="99999999-99999999")
    while probe.status == 409:  # until the server knows that it was cut off
        probe = await registry.ask("PATCH", address, b"x", Content_Range="99999999-99999999")
    assert probe.status == 416
    size = await _last_byte(registry, address) + 1
    assert size <= 5 << 20
    end = f"{size}-{len(content) - 1}"
    await registry.ask("PATCH", address, content[size:], Content_Range=end)
    answer = await registry.ask("PUT", f"{address}?digest={digest_of(content)}")

    assert answer.status == 201
    blob = await registry.ask("GET", answer.headers["Location"])
    assert blob.body == content


@pytest.mark.parametrize("length", [3, 9])
async def test_a_piece_that_is_not_as_long_as_it_says_is_not_there(
    registry: Registry, home: str, length: int
) -> None:
    address = await registry.begin(home)
    await registry.ask("PATCH", address, b"first,")

    async def without_length() -> AsyncIterator[bytes]:
        yield b"wrong"

    answer = await registry.ask(
        "PATCH", address, without_length(), Content_Range=f"6-{6 + length - 1}"
    )

    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert await _last_byte(registry, address) == 5
    assert (await registry.ask("PATCH", address, b"right", Content_Range="6-10")).status == 202
    digest = digest_of(b"first,right")
    assert (await registry.ask("PUT", f"{address}?digest={digest}")).status == 201


async def _last_byte(registry: Registry, address: str) -> int:
    """Of an upload, as far as it has come."""
    answer = await registry.ask("GET", address)
    return int(answer.headers["Range"].partition("-")[2])


async def test_an_upload_goes_on_after_the_server_was_killed(
    own_server: ServerProcess, session: aiohttp.ClientSession
) -> None:
    registry = Registry(session, own_server.url, own_server.token)
    home, content = f"{own_server.user}/image", os.urandom(2 << 20)
    address = await registry.begin(home)
    await registry.ask("PATCH", address, content[: 1 << 20])

    await asyncio.to_thread(own_server.kill)
    await asyncio.to_thread(own_server.start)
    await registry.ask("PATCH", address, content[1 << 20 :])
    answer = await registry.ask("PUT", f"{address}?digest={digest_of(content)}")

    assert answer.status == 201
    registry = Registry(session, own_server.url, own_server.token)
    blob = await registry.ask("GET", answer.headers["Location"])
    assert blob.body == content


async def test_an_upload_outlives_the_token_that_began_it(
    server: ServerProcess, session: aiohttp.ClientSession, client: Client, alice: Client
) -> None:
    token = await client.users.create_token(alice.user)
    registry, home = Registry(session, server.url, token.token), f"{alice.user}/long"
    address = await registry.begin(home)

    await client.users.revoke_token(alice.user, token.id)

    refused = await registry.ask("POST", f"/v2/{home}/blobs/uploads/")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert (await registry.ask("PATCH", address, b"a piece")).status == 202
    answer = await registry.ask("PUT", f"{address}?digest={digest_of(b'a piece')}")
    assert answer.status == 201


async def test_an_upload_ends_with_the_person_who_began_it(
    server: ServerProcess, session: aiohttp.ClientSession, client: Client
) -> None:
    name = f"gone-{secrets.token_hex(4)}"
    await client.users.add(name)
    token = await client.users.create_token(name)
    registry = Registry(session, server.url, token.token)
    address = await registry.begin(f"{name}/image")

    await client.users.remove(name)

    answer = await registry.ask("PATCH", address, b"a piece")
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_uploads_of_service_accounts_are_counted_with_those_of_their_owner(
    database: Database,
) -> None:
    now = datetime.now(UTC)
    for number, person in enumerate(["anna", "anna--ci", "anna-b", "boris--ci"]):
        row = UploadRow(str(number), "anna/image", person, "sha256")
        await database.write(partial(blob_tables.add_upload, upload=row, now=now))

    for person, count in (("anna", 2), ("anna--robot", 2), ("anna-b", 1), ("boris", 1)):
        counted = partial(blob_tables.count_uploads, person=person)
        assert await database.read(counted) == count


async def test_what_is_not_what_its_digest_says_is_not_there(
    registry: Registry, home: str, server: ServerProcess
) -> None:
    digest = digest_of(b"right")
    address = await registry.begin(home)

    answer = await registry.ask("PUT", f"{address}?digest={digest}", b"wrong")

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert digest_of(b"wrong") in answer.message
    assert (await registry.ask("HEAD", f"/v2/{home}/blobs/{digest}")).status == 404
    assert (await registry.ask("GET", address)).code == "BLOB_UPLOAD_UNKNOWN"
    assert not (
        server.data_dir / "storage" / IMAGES / "uploads" / address.rpartition("/")[2]
    ).exists()


async def test_two_tokens_at_an_upload_are_refused_in_the_registrys_words(
    registry: Registry, home: str, server: ServerProcess, session: aiohttp.ClientSession
) -> None:
    address = await registry.begin(home)

    two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    async with session.patch(registry.address + address, data=b"x", headers=two) as answer:
        said = await answer.json()

    assert (answer.status, said["errors"][0]["code"]) == (401, "UNAUTHORIZED")


def test_a_blob_that_was_pushed_since_is_not_thrown_away(tmp_path: Path) -> None:
    """Else one of the database's time limits lets a slow collection take what is new."""
    store, digest = BlobStore(tmp_path), digest_of(b"layer")
    store.begin("upload")
    incoming = store.continue_upload("upload", "sha256")
    incoming.write([b"layer"])
    incoming.place(digest)
    incoming.close()
    placed = next(status for _, status in store.files()).st_mtime

    assert not store.throw_away(digest, before=placed)
    assert store.has(digest)
    assert store.throw_away(digest, before=placed + 1)
    assert not store.has(digest)


def test_the_folders_above_a_blob_are_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(blobs, "sync_folder", lambda folder: synced.append(folder.name))
    one, other = f"sha256:ab{62 * '0'}", f"sha256:ab{62 * '1'}"

    def keep(store: BlobStore, digest: str) -> list[str]:
        synced.clear()
        store.begin("upload")
        store.place("upload", digest)
        store.keep(digest)
        return list(synced)

    store = BlobStore(tmp_path)
    assert keep(store, one) == ["ab", "sha256", "blobs"]
    assert keep(store, other) == ["ab"]
    # Whoever has made the folder may have been killed before it was on the disk.
    assert keep(BlobStore(tmp_path), one) == ["ab", "sha256", "blobs"]
    for file in (tmp_path / "blobs" / "sha256" / "ab").iterdir():
        file.unlink()
    (tmp_path / "blobs" / "sha256" / "ab").rmdir()
    assert keep(store, one) == ["ab", "sha256", "blobs"]


def test_an_upload_that_has_just_become_a_blob_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever asks for both at once would write into a blob that was found right."""
    store, digest = BlobStore(tmp_path), digest_of(b"layer")
    store.begin("upload")
    incoming = store.continue_upload("upload", "sha256")
    incoming.write([b"layer"])
    incoming.close()
    lock = fcntl.flock

    def placed_first(fd: int, operation: int) -> None:
        monkeypatch.undo()
        store.place("upload", digest)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", placed_first)

    with pytest.raises(RegistryError, match="This upload was not found"):
        store.continue_upload("upload", "sha256")


async def test_an_upload_is_of_one_repository(registry: Registry, home: str) -> None:
    address = await registry.begin(home)

    answer = await registry.ask("PATCH", address.replace(home, f"{home}-not"), b"x")

    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize(
    ("content", "media_type", "words"),
    [
        (b"{", MANIFEST, "not what its type says"),
        (b"[" * 100_000, MANIFEST, "not what its type says"),
        (b'{"schemaVersion": 1, "config": null}', MANIFEST, "version 2"),
        (b'{"schemaVersion": 2, "layers": []}', MANIFEST, "'config' and 'layers'"),
        (b'{"schemaVersion": 2, "manifests": []}', MANIFEST, "'config' and 'layers'"),
        (b'{"schemaVersion": 2, "layers": []}', INDEX, "'manifests'"),
        (index([]), MANIFEST, "was pushed as"),
        (manifest(b"{}", []), "text/plain", "'text/plain' are not kept"),
    ],
)
async def test_a_manifest_that_is_none_is_told_why(
    registry: Registry, home: str, content: bytes, media_type: str, words: str
) -> None:
    answer = await registry.ask("PUT", f"/v2/{home}/manifests/v1", content, Content_Type=media_type)

    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert words in answer.message
    assert (await registry.ask("GET", f"/v2/{home}/manifests/v1")).status == 404


async def test_a_manifest_over_its_limit_is_refused(registry: Registry, home: str) -> None:
    content = manifest(b"{}", [], annotations={"much": "x" * (4 << 20)})

    answer = await registry.ask("PUT", f"/v2/{home}/manifests/v1", content, Content_Type=MANIFEST)

    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nobody/manifests/v1", "NAME_INVALID"),
        ("Anna/image/manifests/v1", "NAME_INVALID"),
        ("anna/" + 251 * "x" + "/manifests/v1", "NAME_INVALID"),
        ("anna/image/manifests/.v1", "TAG_INVALID"),
        ("anna/image/manifests/" + 129 * "x", "TAG_INVALID"),
        ("anna/image/blobs/sha256:abc", "DIGEST_INVALID"),
        ("anna/image/blobs/md5:" + 32 * "0", "DIGEST_INVALID"),
        ("anna/image/blobs/sha256:" + 64 * "A", "DIGEST_INVALID"),
        ("anna/image/nothing", "NAME_UNKNOWN"),
    ],
)
async def test_a_bad_name_is_told_so(registry: Registry, path: str, code: str) -> None:
    answer = await registry.ask("GET", f"/v2/{path}")

    assert answer.code == code, answer
    assert answer.status in (400, 404)


async def test_a_mount_takes_no_bytes(registry: Registry, home: str) -> None:
    digest, other = await registry.push_blob(home, os.urandom(100)), f"{home}-too"

    for query in (f"mount={digest}&from={home}", f"mount={digest}"):
        answer = await registry.ask("POST", f"/v2/{other}/blobs/uploads/?{query}")
        assert answer.status == 201, answer
    assert (await registry.ask("GET", answer.headers["Location"])).status == 200


async def test_only_what_one_may_read_can_be_mounted(
    registry: Registry, alices: Registry, home: str
) -> None:
    digest, own = await registry.push_blob(home, os.urandom(100)), "alice/image"

    for query in (f"mount={digest}&from={home}", f"mount={digest}"):
        answer = await alices.ask("POST", f"/v2/{own}/blobs/uploads/?{query}")
        assert answer.status == 202, answer
    assert (await alices.ask("HEAD", f"/v2/{own}/blobs/{digest}")).status == 404


async def test_a_blob_that_an_image_needs_stays(registry: Registry, home: str) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    path = f"/v2/{home}/blobs/{digest_of(b'layer')}"

    answer = await registry.ask("DELETE", path)

    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert (await registry.ask("GET", path)).body == b"layer"


async def test_a_lost_file_is_as_if_it_was_never_pushed(
    registry: Registry, home: str, server: ServerProcess
) -> None:
    content = os.urandom(50)
    digest = await registry.push_blob(home, content)
    [file] = _files(server, digest)

    file.unlink()

    for method in ("HEAD", "GET"):
        assert (await registry.ask(method, f"/v2/{home}/blobs/{digest}")).status == 404
    mount = await registry.ask("POST", f"/v2/{home}-too/blobs/uploads/?mount={digest}")
    assert mount.status == 202
    await registry.push_blob(home, content)
    assert (await registry.ask("GET", f"/v2/{home}/blobs/{digest}")).body == content


def _missing(answer: Answer) -> set[str]:
    """The digests that an answer says are missing."""
    errors = json.loads(answer.body)["errors"]
    assert {each["code"] for each in errors} == {"MANIFEST_BLOB_UNKNOWN"}
    return {each["detail"]["digest"] for each in errors}


async def test_what_is_pushed_whole_is_kept_only_with_its_blobs(
    registry: Registry, home: str
) -> None:
    content = manifest(b"{}", [b"one", b"two"])
    path = f"/v2/{home}/manifests/v1"
    await registry.push_blob(home, b"one")

    refused = await registry.ask("PUT", f"{path}?whole=1", content, Content_Type=MANIFEST)
    absent = await registry.ask("GET", path)
    for blob in (b"{}", b"two"):
        await registry.push_blob(home, blob)
    taken = await registry.ask("PUT", f"{path}?whole=1", content, Content_Type=MANIFEST)

    assert (refused.status, _missing(refused)) == (404, {digest_of(b"{}"), digest_of(b"two")})
    assert absent.code == "MANIFEST_UNKNOWN"
    assert (taken.status, taken.headers["Docker-Content-Digest"]) == (201, digest_of(content))
    assert (await registry.ask("GET", path)).body == content


async def test_a_first_whole_push_leaves_no_repository_behind(
    registry: Registry, home: str
) -> None:
    path = f"/v2/{home}/manifests/v1"

    refused = await registry.ask(
        "PUT", f"{path}?whole=1", manifest(b"{}", []), Content_Type=MANIFEST
    )

    assert _missing(refused) == {digest_of(b"{}")}
    assert (await registry.ask("GET", path)).code == "NAME_UNKNOWN"


async def test_a_blob_whose_file_is_lost_is_missing_in_a_whole_push(
    registry: Registry, home: str, server: ServerProcess
) -> None:
    layer = os.urandom(50)
    await registry.push_image(home, "v1", [layer])
    content = (await registry.ask("GET", f"/v2/{home}/manifests/v1")).body
    path = f"/v2/{home}/manifests/v2?whole=1"
    [file] = _files(server, digest_of(layer))

    file.unlink()
    refused = await registry.ask("PUT", path, content, Content_Type=MANIFEST)
    await registry.push_blob(home, layer)
    taken = await registry.ask("PUT", path, content, Content_Type=MANIFEST)

    assert (_missing(refused), taken.status) == ({digest_of(layer)}, 201)


async def test_only_so_many_missing_blobs_are_told_at_once(registry: Registry, home: str) -> None:
    content = manifest(b"{}", [str(number).encode() for number in range(MOST_MISSING + 9)])

    refused = await registry.ask(
        "PUT", f"/v2/{home}/manifests/v1?whole=1", content, Content_Type=MANIFEST
    )

    assert len(_missing(refused)) == MOST_MISSING


@pytest.mark.parametrize("query", ["whole=1", "whole=perhaps"])
async def test_an_index_is_not_pushed_whole(registry: Registry, home: str, query: str) -> None:
    answer = await registry.ask(
        "PUT", f"/v2/{home}/manifests/v1?{query}", index([]), Content_Type=INDEX
    )

    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert (await registry.ask("GET", f"/v2/{home}/manifests/v1")).status == 404


def _files(server: ServerProcess, digest: str) -> list[Path]:
    folder = server.data_dir / "storage" / IMAGES / "blobs"
    return list(folder.rglob(digest.partition(":")[2]))
