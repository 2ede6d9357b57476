"""``neuro image push`` and ``pull`` by a real daemon: Docker's, and podman's service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from neuro.client import Client
from tests.engines import docker_daemon
from tests.server.registry import relay
from tests.server_process import ServerProcess

ONLY_SQLITE = "Daemons send the requests of test_pushes.py, which has both databases."

Neuro = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("podman", marks=pytest.mark.podman),
    ]
)
async def daemon(
    request: pytest.FixtureRequest, server: ServerProcess, tmp_path: Path
) -> AsyncIterator[str]:
    """Where a daemon listens that finds the registry at the server's own address."""
    kind = str(request.param)
    socket = docker_daemon.socket_path(kind)  # It ends with the thread that starts it.
    async with relay.into_network(docker_daemon.process(kind), server.port, tmp_path / "relay"):
        yield socket


@pytest.fixture
async def neuro(daemon: str, server: ServerProcess, tmp_path: Path) -> Neuro:
    """Runs ``neuro``, logged in; ``docker`` as the first word runs that."""
    helper = tmp_path / "docker-credential-neuro"
    helper.write_text(f'#!/bin/sh\nexec {sys.executable} -m neuro.cli.docker_credential "$@"\n')
    helper.chmod(0o755)
    config = {
        "HOME": str(tmp_path),
        "DOCKER_HOST": f"unix://{daemon}",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    environment = {**os.environ, **config, "NEUROMATION_CONFIG": str(tmp_path / ".neuro")}

    async def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        program = [] if words[0] == "docker" else [sys.executable, "-m", "neuro.cli"]
        done = await asyncio.to_thread(
            lambda: subprocess.run(
                [*program, *words], env=environment, capture_output=True, text=True
            )
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    await run("config", "login-with-token", server.token, server.url)
    return run


@pytest.mark.root
async def test_an_image_goes_there_and_comes_back(
    neuro: Neuro,
    home: str,
    server: ServerProcess,
    client: Client,
    alice: Client,
    request: pytest.FixtureRequest,
) -> None:
    name = home.partition("/")[2]
    await neuro("docker", "tag", docker_daemon.IMAGE, f"{name}:v1")

    pushed = await neuro("push", f"{name}:v1")
    assert pushed.stdout == f"image://default/{home}:v1\n"
    # podman's service says nothing of layers.
    by_docker = "docker" in request.node.callspec.id
    assert (": pushed" in pushed.stderr) == by_docker
    # The name of the registry's is not left behind.
    listed = (await neuro("docker", "images", "--format", "{{.Repository}}")).stdout
    assert f"127.0.0.1:{server.port}/{home}" not in listed.split()
    again = await neuro("image", "push", f"{name}:v1", f"image:{name}:v2")
    assert (": there already" in again.stderr) == by_docker
    await neuro("docker", "rmi", f"{name}:v1")

    pulled = await neuro("image", "pull", f"image:{name}:v2", f"{name}:back")
    assert pulled.stdout == f"{name}:back\n"
    said = await neuro("docker", "inspect", f"{name}:back")
    assert json.loads(said.stdout)[0]["Config"]["Cmd"] == ["bash"]
    assert (await neuro("-q", "push", f"{name}:back")).stderr == ""
    await neuro("docker", "rmi", f"{name}:back")

    # Docker's own command line finds the token by the helper.
    await neuro("config", "docker")
    whole = f"127.0.0.1:{server.port}/{home}:v4"
    await neuro("docker", "tag", docker_daemon.IMAGE, whole)
    if by_docker:
        await neuro("docker", "push", whole)
        await neuro("image", "digest", f"image:{name}:v4")
    await neuro("docker", "rmi", whole)

    absent = await neuro("push", f"{name}:absent", code=72)
    assert f"There is no image '{name}:absent'" in absent.stderr
    await neuro("docker", "tag", docker_daemon.IMAGE, f"{name}:v1")
    token = await client.users.create_token(alice.user)
    await neuro("config", "login-with-token", token.token, server.url)
    denied = await neuro("push", f"{name}:v1", f"image:/{home}:v3", code=76)
    assert "could not do it" in denied.stderr
    await neuro("docker", "rmi", f"{name}:v1")
