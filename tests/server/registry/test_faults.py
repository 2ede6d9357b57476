"""What befalls a registry: a full disk, two who push one tag, removal during a pull, a kill."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from neuro.server.registry.blobs import IMAGES
from tests.server.registry.client import Registry, digest_of
from tests.server.registry.relay import Streams
from tests.server_process import SETTINGS, ServerProcess, running_server

MIB = 1 << 20
SWEPT_SECONDS = 60.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose storage has 48 MiB; its database is elsewhere."""
    folder = tmp_path / "storage"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        settings = f'{SETTINGS}\n[storage]\nfolder = "{folder}"\n'
        with running_server(tmp_path / "data", settings=settings) as server:
            yield server
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
async def test_a_full_disk_refuses_a_push_and_keeps_nothing_of_it(
    small_disk: ServerProcess, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    registry = Registry(session, small_disk.url, small_disk.token)
    home = f"{small_disk.user}/trainer"
    kept = os.urandom(8 * MIB)
    await registry.push_image(home, "v1", [kept])
    used = shutil.disk_usage(tmp_path / "storage").used
    large = os.urandom(60 * MIB)

    for asked in ("PATCH", "PUT"):
        place = await registry.begin(home)
        query = f"?digest={digest_of(large)}" if asked == "PUT" else ""
        refused = await registry.ask(asked, place + query, large)

        assert refused.status == 503
        assert refused.code == "UNAVAILABLE"
        assert "disk is full" in refused.message
        assert (await registry.ask("GET", place)).status == 404
    assert list((tmp_path / "storage" / IMAGES / "uploads").iterdir()) == []
    assert shutil.disk_usage(tmp_path / "storage").used < used + MIB
    assert (await registry.ask("GET", f"/v2/{home}/blobs/{digest_of(kept)}")).body == kept
    await registry.push_image(home, "v2", [os.urandom(8 * MIB)])


async def test_of_two_pushes_of_one_tag_one_is_there_whole(registry: Registry, home: str) -> None:
    for _ in range(5):
        layers = [os.urandom(100_000) for _ in range(4)]

        pushed = await asyncio.gather(
            *(registry.push_image(home, "latest", [layer]) for layer in layers)
        )

        found = await registry.ask("GET", f"/v2/{home}/manifests/latest")
        number = pushed.index(found.headers["Docker-Content-Digest"])
        assert digest_of(found.body) == pushed[number]
        for part in json.loads(found.body)["layers"]:
            blob = await registry.ask("GET", f"/v2/{home}/blobs/{part['digest']}")
            assert blob.body == layers[number]
        # The others have lost their tag, and are there by their digests.
        for digest in pushed:
            assert (await registry.ask("GET", f"/v2/{home}/manifests/{digest}")).status == 200


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that collects garbage all the time."""
    program = [str(Path(__file__).with_name("sweeping.py"))]
    with running_server(tmp_path / "data", program=program) as server:
        yield server


async def test_a_pull_that_has_begun_gets_all_of_a_blob_that_is_removed(
    sweeping: ServerProcess, session: aiohttp.ClientSession
) -> None:
    registry = Registry(session, sweeping.url, sweeping.token)
    home = f"{sweeping.user}/trainer"
    content = os.urandom(64 * MIB)  # more than sockets keep
    digest = await registry.push_blob(home, content)
    address = f"{registry.address}/v2/{home}/blobs/{digest}"
    shown = {"Authorization": f"Bearer {sweeping.token}"}
    files = sweeping.data_dir / "storage" / IMAGES

    async with session.get(address, headers=shown) as answer:
        got = hashlib.sha256(await answer.content.readexactly(MIB))
        assert (await registry.ask("DELETE", f"/v2/{home}/blobs/{digest}")).status == 202
        await asyncio.to_thread(_wait_until_gone, files, digest)
        async for piece in answer.content.iter_any():
            got.update(piece)

    assert f"sha256:{got.hexdigest()}" == digest
    gone = await registry.ask("GET", f"/v2/{home}/blobs/{digest}")
    assert (gone.status, gone.code) == (404, "BLOB_UNKNOWN")


def _wait_until_gone(files: Path, digest: str) -> None:
    """Until neither a blob nor the trash has it."""
    encoded = digest.partition(":")[2]
    until = time.monotonic() + SWEPT_SECONDS
    while list(files.glob(f"*/**/*{encoded}*")):
        assert time.monotonic() < until, f"{digest} is not swept"
        time.sleep(0.02)


@asynccontextmanager
async def _killing(server: ServerProcess, after: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port through which the server is reached, until so many bytes have gone there: it is killed
    then, and started again. With the port comes what is set once it is back.
    """
    back, left = asyncio.Event(), after

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        nonlocal left
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                if up and left > 0:
                    left -= len(piece)
                    if left <= 0:
                        await asyncio.to_thread(server.kill)
                        await asyncio.to_thread(server.start)
                        back.set()
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there: Streams = await asyncio.open_connection("127.0.0.1", server.port)
        except ConnectionError:  # It is down.
            writer.close()
            return
        await asyncio.gather(copy(reader, there[1], True), copy(there[0], writer, False))

    relay = await asyncio.start_server(join, "127.0.0.1", 0)
    try:
        yield relay.sockets[0].getsockname()[1], back
    finally:
        relay.close()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo (apt: skopeo)")
async def test_a_push_that_a_kill_has_cut_is_pushed_again_by_skopeo(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    layers = [os.urandom(32 * MIB) for _ in range(2)]
    layout = _layout(tmp_path / "layout", layers)
    with running_server(tmp_path / "data") as server:
        home = f"{server.user}/trainer"
        uploads = server.data_dir / "storage" / IMAGES / "uploads"

        async with _killing(server, 20 * MIB) as (port, back):

            async def push() -> int:
                child = await asyncio.create_subprocess_exec(
                    *("skopeo", "copy", "--dest-tls-verify=false"),
                    *("--dest-creds", f"anybody:{server.token}"),
                    *(f"oci:{layout}:v1", f"docker://127.0.0.1:{port}/{home}:v1"),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                return await child.wait()

            await push()
            await back.wait()
            registry = Registry(session, server.url, server.token)
            cut = {path.name for path in uploads.iterdir()}
            assert await push() == 0

        # What was cut is nothing that anybody sees, and goes when it is a day old.
        assert {path.name for path in uploads.iterdir()} <= cut
        told = json.loads((await registry.ask("GET", f"/v2/{home}/manifests/v1")).body)
        pulled = [
            (await registry.ask("GET", f"/v2/{home}/blobs/{one['digest']}")).body
            for one in told["layers"]
        ]
        assert [digest_of(one) for one in pulled] == [one["digest"] for one in told["layers"]]
        assert [gzip.decompress(one) for one in pulled] == layers  # skopeo packs them.


def _layout(folder: Path, layers: list[bytes]) -> Path:
    """An OCI layout of an image with these layers, which nobody runs."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(content: bytes, media_type: str) -> dict[str, object]:
        digest = digest_of(content)
        (blobs / digest.partition(":")[2]).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    kind = "application/vnd.oci.image"
    parts = [keep(layer, f"{kind}.layer.v1.tar") for layer in layers]
    roots = {"type": "layers", "diff_ids": [part["digest"] for part in parts]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": roots, "config": {}}
    value = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": keep(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": parts,
    }
    listed = keep(json.dumps(value).encode(), f"{kind}.manifest.v1+json")
    listed["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder
