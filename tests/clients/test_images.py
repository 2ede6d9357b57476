"""Images that somebody has pushed (docs/reference/wire-protocol.md#images)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from tests.clients.reference_client import ReferenceClient
from tests.server.registry import client as registries
from tests.server_process import ServerProcess

# The published clients ask for this kind alone.
DOCKERS = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def image(server: ServerProcess, named: Callable[[str], str]) -> tuple[str, str]:
    """An image with the tags v1 and v2: its name, and its digest."""
    name = named("trainer")

    async def push() -> str:
        async with aiohttp.ClientSession() as session:
            registry = registries.Registry(session, server.url, server.token)
            home, layer, digest = f"{server.user}/{name}", b"x" * 5000, ""
            await registry.push_blob(home, layer)
            await registry.push_blob(home, b"{}")
            content = registries.manifest(b"{}", [layer], mediaType=DOCKERS)
            for tag in ("v1", "v2"):
                digest = await registry.push_manifest(home, tag, content, DOCKERS)
            return digest

    return name, asyncio.run(push())


def test_images_are_listed_looked_at_and_removed(
    client: ReferenceClient, image: tuple[str, str], server: ServerProcess
) -> None:
    name, digest = image

    def images() -> list[str]:
        return client.run("-q", "image", "ls").out.split()

    assert f"image:{name}" in images()
    host = f"127.0.0.1:{server.port}"
    assert f"{host}/{server.user}/{name}" in client.run("image", "ls", "-l").out
    assert client.run("-q", "image", "tags", f"image:{name}").out.split()[-2:] == ["v1", "v2"]
    assert digest in client.run("image", "digest", f"image:{name}:v1").out
    assert client.run("image", "size", f"image:{name}:v1").out.strip()[0] in "45"
    client.run("image", "rm", "-f", f"image:{name}:v1")

    assert f"image:{name}" not in images()


def test_a_running_job_is_saved(
    client: ReferenceClient, server: ServerProcess, sleeper: str, named: Callable[[str], str]
) -> None:
    image = f"image:{named('saved')}:v1"

    done = client.run("save", sleeper, image)

    assert "Image created" in done.out + done.err
    assert done.out.strip().endswith(f"{server.user}/{image.removeprefix('image:')}")
    assert image.partition(":")[2].partition(":")[0] in client.run("-q", "image", "ls").out
