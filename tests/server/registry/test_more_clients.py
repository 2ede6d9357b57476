"""More programs that nobody here wrote: each pushes, pulls, copies, lists and removes as it can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from tests.server.registry.client import Registry, digest_of
from tests.server.registry.python_clients import CannotInstall, environment
from tests.server.registry.test_clients import image as image
from tests.server_process import ServerProcess

Run = Callable[..., Coroutine[None, None, str]]

# One database is enough for what others do over HTTP.
pytestmark = pytest.mark.parametrize("server", ["sqlite"], indirect=True)


def _needs(*programs: str, package: str) -> pytest.MarkDecorator:
    lacking = any(shutil.which(program) is None for program in programs)
    return pytest.mark.skipif(
        lacking and not os.environ.get("CI"), reason=f"needs {programs[0]} (apt: {package})"
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program to its end, which has to be a good one; returns what it printed."""

    async def run(*words: str, **environment: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path), **environment},
            cwd=tmp_path,
        )
        said, complaint = await child.communicate()
        assert child.returncode == 0, f"{' '.join(words)}: {complaint.decode()}"
        return said.decode()

    return run


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets and for what programs keep, whose paths may not be long."""
    with tempfile.TemporaryDirectory(prefix="neuro-", dir="/tmp") as folder:
        yield Path(folder)


async def _tags(registry: Registry, name: str) -> list[str]:
    return list(json.loads((await registry.ask("GET", f"/v2/{name}/tags/list")).body)["tags"])


async def _manifest(registry: Registry, name: str, tag: str) -> dict[str, object]:
    answer = await registry.ask("GET", f"/v2/{name}/manifests/{tag}")
    assert answer.status == 200, answer
    return dict(json.loads(answer.body))


@pytest.mark.root
@_needs("podman", package="podman")
async def test_podman_pulls_and_pushes(
    registry: Registry, image: str, home: str, server: ServerProcess, run: Run, short: Path
) -> None:
    top = f"127.0.0.1:{server.port}"
    own = f"podman --root {short}/root --runroot {short}/run --storage-driver vfs".split()
    access = ("--tls-verify=false", "--authfile", f"{short}/auth.json")

    who = ("--username", "anybody", "--password", server.token)
    await run(*own, "login", *access, *who, top)
    await run(*own, "pull", *access, f"{top}/{image}")
    await run(*own, "tag", f"{top}/{image}", f"{top}/{home}-podman:v2")
    await run(*own, "push", *access, f"{top}/{home}-podman:v2")
    listed = await run(*own, "search", "--list-tags", *access, f"{top}/{home}-podman")

    assert await _tags(registry, f"{home}-podman") == ["v2"]
    assert "v2" in listed
    layers = (await _manifest(registry, f"{home}-podman", "v2"))["layers"]
    assert isinstance(layers, list)
    assert len(layers) == 1


@pytest.mark.root
@_needs("buildah", package="buildah")
async def test_buildah_builds_on_an_image_and_pushes(
    registry: Registry,
    image: str,
    home: str,
    server: ServerProcess,
    run: Run,
    short: Path,
    tmp_path: Path,
) -> None:
    top = f"127.0.0.1:{server.port}"
    own = f"buildah --root {short}/root --runroot {short}/run --storage-driver vfs".split()
    access = ("--tls-verify=false", "--creds", f"anybody:{server.token}")
    (tmp_path / "added").write_text("by buildah")

    base = f"docker://{top}/{image}"
    made = (await run(*own, "from", "--quiet", *access, base)).strip()
    await run(*own, "copy", "--quiet", made, "added", "/added")
    await run(*own, "commit", "--quiet", "--rm", made, "built")
    await run(*own, "push", "--quiet", *access, "built", f"docker://{top}/{home}-buildah:v1")

    layers = (await _manifest(registry, f"{home}-buildah", "v1"))["layers"]
    assert isinstance(layers, list)
    assert len(layers) == 2


@_needs("umoci", "skopeo", package="umoci skopeo")
async def test_umoci_changes_what_skopeo_brings_and_takes(
    registry: Registry, image: str, home: str, server: ServerProcess, run: Run, tmp_path: Path
) -> None:
    top, plain = f"docker://127.0.0.1:{server.port}", "tls-verify=false"
    creds = f"anybody:{server.token}"

    await run(
        *("skopeo", "copy", f"--src-{plain}", "--src-creds", creds),
        *(f"{top}/{image}", "oci:layout:v1"),
    )
    await run(
        *["umoci", "config", "--image", "layout:v1", "--tag", "v2", "--config.label", "made=umoci"]
    )
    await run("umoci", "gc", "--layout", "layout")
    await run(
        *("skopeo", "copy", f"--dest-{plain}", "--dest-creds", creds),
        *("oci:layout:v2", f"{top}/{home}-umoci:v2"),
    )
    said = await run(
        "skopeo", "inspect", "--config", f"--{plain}", "--creds", creds, f"{top}/{home}-umoci:v2"
    )

    assert json.loads(said)["config"]["Labels"]["made"] == "umoci"
    await run(
        *("skopeo", "copy", "--all", f"--src-{plain}", f"--dest-{plain}"),
        *("--src-creds", creds, "--dest-creds", creds),
        *(f"{top}/{home}-umoci:v2", f"{top}/{home}-copy:v3"),
    )
    assert await _tags(registry, f"{home}-copy") == ["v3"]


@contextlib.asynccontextmanager
async def _containerd(folder: Path) -> AsyncIterator[str]:
    """The socket of a containerd that has nothing to do with the machine's."""
    socket = folder / "s"
    settings = folder / "config.toml"
    settings.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    child = await asyncio.create_subprocess_exec(
        "containerd", "--config", settings, stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    said = b""
    try:
        while b"containerd successfully booted" not in said:
            line = await child.stderr.readline()
            assert line, said.decode()
            said += line
        drain = asyncio.create_task(child.stderr.read())
        yield str(socket)
    finally:
        child.terminate()
        await child.wait()
    await drain


@pytest.mark.root
@_needs("containerd", "ctr", package="containerd")
async def test_containerd_pulls_as_the_nodes_of_kubernetes_do_and_pushes(
    registry: Registry,
    image: str,
    home: str,
    server: ServerProcess,
    run: Run,
    short: Path,
    tmp_path: Path,
) -> None:
    top = f"127.0.0.1:{server.port}"
    # Where nodes are told of registries: a folder for each.
    hosts = tmp_path / "certs.d" / top
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "http://{top}"\n[host."http://{top}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    user = ("--user", f"anybody:{server.token}")

    async with _containerd(short) as socket:
        ctr = ("ctr", "--address", socket)
        places = ("--snapshotter", "native", "--hosts-dir", str(tmp_path / "certs.d"))
        await run(*ctr, "images", "pull", *places, *user, f"{top}/{image}")
        await run(*ctr, "images", "tag", f"{top}/{image}", f"{top}/{home}-ctr:v2")
        await run(*ctr, "images", "push", "--plain-http", *user, f"{top}/{home}-ctr:v2")
        listed = await run(*ctr, "images", "list", "--quiet")

    assert sorted(listed.split()) == sorted([f"{top}/{image}", f"{top}/{home}-ctr:v2"])
    pushed = await registry.ask("GET", f"/v2/{home}-ctr/manifests/v2")
    known = await registry.ask("GET", f"/v2/{home}/manifests/v1")
    assert pushed.body == known.body


@pytest.fixture
def clients() -> Path:
    try:
        return environment() / "bin"
    except CannotInstall as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


async def test_dxf_pushes_pulls_lists_and_removes(
    registry: Registry, home: str, server: ServerProcess, run: Run, clients: Path, tmp_path: Path
) -> None:
    # It sends a password over HTTPS alone, and a token over both.
    top = f"127.0.0.1:{server.port}"
    settings = {"DXF_HOST": top, "DXF_INSECURE": "1", "DXF_TOKEN": server.token}

    async def dxf(*words: str) -> str:
        return await run(str(clients / "dxf"), *words, **settings)

    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    digest = (await dxf("push-blob", home, "file", "@latest")).strip()
    assert digest == digest_of(content)
    assert (await dxf("get-alias", home, "latest")).strip() == digest
    assert (await dxf("blob-size", home, "@latest")).strip() == "100000"
    await dxf("set-alias", home, "v1", digest)
    assert sorted((await dxf("list-aliases", home)).split()) == ["latest", "v1"]
    assert home in (await dxf("list-repos")).split()
    await dxf("mount-blob", f"{home}-dxf", home, digest, "@mounted")
    assert await _tags(registry, f"{home}-dxf") == ["mounted"]
    await dxf("del-alias", home, "v1")
    assert (await registry.ask("GET", f"/v2/{home}/manifests/v1")).status == 404


_ORAS = """
import sys
import oras.client

top, home, token = sys.argv[1:]
client = oras.client.OrasClient(hostname=top, insecure=True, auth_backend="basic")
client.login(username="anybody", password=token, hostname=top, tls_verify=False)
for chunked in (False, True):
    target = f"{top}/{home}:{'chunked' if chunked else 'whole'}"
    client.push(target=target, files=["file"], do_chunked=chunked, chunk_size=30_000)
    [pulled] = client.pull(target=target, outdir="pulled")
    assert open(pulled, "rb").read() == open("file", "rb").read()
assert sorted(client.get_tags(f"{top}/{home}")) == ["chunked", "whole"]
client.delete_tags(f"{top}/{home}", ["chunked"])
"""


async def test_oras_pushes_pulls_lists_and_removes(
    registry: Registry, home: str, server: ServerProcess, run: Run, clients: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "program.py").write_text(_ORAS)

    top = f"127.0.0.1:{server.port}"
    await run(str(clients / "python"), "program.py", top, home, server.token)

    assert "chunked" not in await _tags(registry, home)
