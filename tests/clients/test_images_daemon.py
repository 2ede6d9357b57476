"""Images that the published clients push and pull by a real daemon of Docker's."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.clients.reference_client import ReferenceClient
from tests.engines import docker_daemon
from tests.server.registry import relay
from tests.server_process import ServerProcess

pytestmark = [pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def daemon(server: ServerProcess, tmp_path: Path) -> AsyncIterator[str]:
    """Where a daemon listens that finds the registry at the server's own address."""
    socket = docker_daemon.socket_path()  # It ends with the thread that starts it.
    async with relay.into_network(docker_daemon.process(), server.port, tmp_path / "relay"):
        yield f"unix://{socket}"


async def test_images_are_pushed_and_pulled(
    client: ReferenceClient, daemon: str, named: Callable[[str], str], server: ServerProcess
) -> None:
    name, image = named("pushed"), f"image:{named('pushed')}:v1"
    docker_daemon.docker("tag", docker_daemon.IMAGE, f"{name}:local")

    async def run(*words: str, ok: bool = True) -> str:
        done = await asyncio.to_thread(client.run, *words, ok=ok, DOCKER_HOST=daemon)
        return done.out + done.err

    pushed = await run("image", "push", f"{name}:local", image)
    assert f"image://default/{server.user}/{name}:v1" in pushed
    assert f"image:{name}" in await run("-q", "image", "ls")
    assert "v1" in (await run("-q", "image", "tags", f"image:{name}")).split()
    assert "v1" in await run("image", "tags", "-l", f"image:{name}")
    assert "sha256:" in await run("image", "digest", image)
    assert "M" in await run("image", "size", image)

    docker_daemon.docker("rmi", f"{name}:local")
    pulled = await run("image", "pull", image, f"{name}:back")
    assert f"{name}:back" in pulled
    assert docker_daemon.docker("run", "--rm", f"{name}:back", "echo", "hello").stdout == "hello\n"
    docker_daemon.docker("rmi", f"{name}:back")

    assert "not found" in (await run("image", "pull", f"image:{name}:v9", ok=False)).lower()
    await run("image", "rm", image)
    assert f"image:{name}" not in (await run("-q", "image", "ls")).split()


async def test_their_helper_finds_the_token(client: ReferenceClient, server: ServerProcess) -> None:
    program = client.programs.environment / "bin" / "docker-credential-neuro"

    done = await asyncio.to_thread(
        subprocess.run,
        [program, "get"],
        input="127.0.0.1",
        env=client.variables(),
        capture_output=True,
        text=True,
    )

    assert json.loads(done.stdout) == {"Username": "token", "Secret": server.token}, done.stderr
