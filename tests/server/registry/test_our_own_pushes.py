"""What engines make goes into the platform's own registry, and comes out of it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from neuro.engines.images.composing import NewLayer, image_of
from neuro.engines.images.connections import Connections
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.packing import Part, pack
from neuro.engines.images.pulling import Pull
from neuro.engines.images.pushing import OfBytes, Push
from neuro.engines.images.reach import plain
from neuro.engines.images.references import parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.store import Store
from neuro.engines.runs import PullCredentials
from neuro.server.registry.blobs import IMAGES
from tests.server_process import ServerProcess


def make(folder: Path) -> tuple[NewLayer, bytes]:
    """A layer of a folder."""
    blob = io.BytesIO()
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        made = pack([Part(fd)], blob.write)
    finally:
        os.close(fd)
    return NewLayer(made.digest, made.size, made.diff_id), blob.getvalue()


@pytest.mark.parametrize("password", [True, False], ids=["owner", "stranger"])
async def test_a_packed_folder_is_pushed_and_pulled(
    server: ServerProcess, home: str, tmp_path: Path, password: bool
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "large").write_bytes(os.urandom(3 << 20))
    made, blob = make(tmp_path / "files")
    image = image_of(None, [made], created="2026-01-02T03:04:05Z")
    reference = parse(f"{urlsplit(server.url).netloc}/{home}:v1")
    credentials = PullCredentials("token", server.token if password else "no-token")
    push = Push(Registry(reference, credentials, plain(reference.registry)), reference, pause=0)
    running = asyncio.to_thread(push.run, image, {made.digest: OfBytes(blob)})
    if not password:
        with pytest.raises(ImageFault) as caught:
            await running
        assert caught.value.kind is FaultKind.DENIED
        return

    await running

    store = Store(str(tmp_path / "images"))
    store.open()
    pull = Pull(store, reference, credentials, reach=plain(reference.registry))
    held = await asyncio.to_thread(pull.run)
    assert (Path(held.layers[0].files) / "large").stat().st_size == 3 << 20
    held.close()


async def test_a_push_to_the_platform_brings_what_it_lacks_and_nothing_else(
    server: ServerProcess, home: str, tmp_path: Path
) -> None:
    """Also a layer whose file the disk has lost, and where two push the same image at once."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file").write_bytes(os.urandom(1000))
    made, blob = make(tmp_path / "files")
    image = image_of(None, [made], created="2026-01-02T03:04:05Z")
    host = urlsplit(server.url).netloc
    credentials = PullCredentials("token", server.token)
    brought: list[str] = []

    class Layer(OfBytes):
        def read(self, offset: int) -> Iterator[bytes]:
            brought.append(made.digest)
            return super().read(offset)

    def push(tag: str) -> None:
        reference = parse(f"{host}/{home}:{tag}")
        with Connections() as connections:
            registry = Registry(
                reference, credentials, plain(host), own=True, connections=connections
            )
            Push(registry, reference, pause=0, whole=True).run(image, {made.digest: Layer(blob)})

    await asyncio.gather(*[asyncio.to_thread(push, tag) for tag in ("v1", "v2")])
    assert 1 <= len(brought) <= 2
    brought.clear()
    await asyncio.to_thread(push, "v3")
    assert brought == []
    folder = server.data_dir / "storage" / IMAGES / "blobs"
    [file] = folder.rglob(made.digest.partition(":")[2])
    file.unlink()
    await asyncio.to_thread(push, "v4")

    assert (brought, file.read_bytes()) == ([made.digest], blob)
    registry = Registry(parse(f"{host}/{home}:v4"), credentials, plain(host), own=True)
    assert registry.manifest("v4")[0] == image.manifest
