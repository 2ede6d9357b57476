"""Programs that nobody here wrote push to the registry and pull from it."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engines import docker_daemon, docker_surroundings
from tests.server.registry import relay
from tests.server.registry.client import Registry
from tests.server_process import ServerProcess

ONLY_SQLITE = "Programs of others send the requests of test_pushes.py, which has both databases."

DOCKERS = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
async def image(registry: Registry, home: str) -> str:
    """An image that programs can run, as OWNER/NAME:TAG."""
    manifest, parts = docker_surroundings.image(home)
    for content in parts.values():
        await registry.push_blob(home, content)
    await registry.push_manifest(home, "v1", manifest, DOCKERS)
    return f"{home}:v1"


@pytest.fixture
async def dockers_registry(server: ServerProcess, tmp_path: Path) -> AsyncIterator[str]:
    """The registry's address for the daemon, which has a network of its own."""
    docker_daemon.socket_path()  # It ends with the thread that starts it.
    async with relay.into_network(docker_daemon.process(), server.port, tmp_path / "relay"):
        yield f"127.0.0.1:{server.port}"


@pytest.mark.docker
@pytest.mark.root
async def test_docker_pulls_and_pushes(
    registry: Registry,
    image: str,
    home: str,
    dockers_registry: str,
    server: ServerProcess,
    tmp_path: Path,
) -> None:
    async def docker(*words: str, said: str = "") -> str:
        config = ("--config", str(tmp_path / "docker"))
        done = await asyncio.to_thread(docker_daemon.docker, *config, *words, input=said)
        return done.stdout

    mine, pushed = f"{dockers_registry}/{image}", f"{dockers_registry}/{home}-pushed:v2"
    login = ("login", "--username", "anybody", "--password-stdin", dockers_registry)
    await docker(*login, said=server.token)
    await docker("pull", mine)
    made = (await docker("create", mine, "sh", "-c", "echo changed > /file")).strip()
    await docker("start", "--attach", made)
    await docker("commit", made, pushed)
    await docker("push", pushed)
    await docker("rm", made)
    await docker("rmi", pushed, mine)
    said = await docker("run", "--rm", pushed, "sh", "-c", "read x < /file; echo $x")
    await docker("rmi", pushed)

    assert said == "changed\n"
    # What was there already, nobody pushed again.
    [layer, _] = json.loads(await _manifest(registry, f"{home}-pushed", "v2"))["layers"]
    [known] = json.loads(await _manifest(registry, home, "v1"))["layers"]
    assert layer == known


async def _manifest(registry: Registry, home: str, tag: str) -> bytes:
    return (await registry.ask("GET", f"/v2/{home}/manifests/{tag}")).body


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo (apt: skopeo)")
async def test_skopeo_copies_lists_and_removes(
    registry: Registry, image: str, home: str, server: ServerProcess, tmp_path: Path
) -> None:
    top = f"docker://127.0.0.1:{server.port}"
    creds, plain = f"anybody:{server.token}", "tls-verify=false"

    async def skopeo(*words: str) -> str:
        child = await asyncio.create_subprocess_exec(
            "skopeo", *words, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert child.returncode == 0
        return said.decode()

    copied = f"{home}-{secrets.token_hex(2)}"
    folder = f"oci:{tmp_path}/layout:v1"
    source = (f"--src-{plain}", "--src-creds", creds)
    target = (f"--dest-{plain}", "--dest-creds", creds)
    await skopeo("copy", *source, f"{top}/{image}", folder)
    await skopeo("copy", *target, folder, f"{top}/{copied}:v1")
    await skopeo("copy", *source, *target, f"{top}/{image}", f"{top}/{copied}:v2")
    listed = json.loads(
        await skopeo("list-tags", f"--{plain}", "--creds", creds, f"{top}/{copied}")
    )
    await skopeo("delete", f"--{plain}", "--creds", creds, f"{top}/{copied}:v1")

    assert listed["Tags"] == ["v1", "v2"]
    remaining = await registry.ask("GET", f"/v2/{copied}/tags/list")
    assert json.loads(remaining.body)["tags"] == ["v2"]
