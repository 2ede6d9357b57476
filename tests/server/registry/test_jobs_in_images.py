"""Jobs of the sandbox that run in images of the platform's own registry."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.jobs import Reason
from tests.engines import docker_image
from tests.server.jobs import finished, output_of, submit
from tests.server.registry.client import Registry, digest_of, manifest
from tests.server_process import ServerProcess, running_server

SETTINGS = "stop_grace_seconds = 1\n[engines.sandbox]\nimages = true\n"


@pytest.fixture(scope="module")
def imaging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose jobs run in images."""
    folder: Path = tmp_path_factory.mktemp("server") / "data"
    with running_server(folder, settings=SETTINGS) as server:
        yield server


async def push(registry: Registry, repository: str, **config: object) -> None:
    """Push an image with a shell."""
    out = io.BytesIO()
    docker_image.write(out, ("sh", "cat", "id"), python=False)
    layer = out.getvalue()
    roots = {"type": "layers", "diff_ids": [digest_of(layer)]}
    body = json.dumps({"rootfs": roots, "config": config}).encode()
    for blob in (body, layer):
        await registry.push_blob(repository, blob)

    await registry.push_manifest(repository, "v1", manifest(body, [layer]))


async def test_a_job_runs_in_an_image_that_was_pushed(imaging: ServerProcess) -> None:
    async with (
        aiohttp.ClientSession() as session,
        Client.connect(imaging.url, imaging.token) as client,
    ):
        registry = Registry(session, imaging.url, imaging.token)
        await push(registry, f"{imaging.user}/trainer", Env=["A=image"], WorkingDir="/opt")

        job = await submit(
            client, "sh -c 'echo $A $PWD; cat /etc/passwd'", image="image:trainer:v1"
        )

        assert (await output_of(client, job)).splitlines() == [
            b"image /opt",
            *docker_image.FILES["etc/passwd"].encode().splitlines(),
        ]
        told = (await client.jobs.get(job.id)).statuses
        assert "Pulling" in [step.reason for step in told]


async def test_a_job_without_its_image_says_why(imaging: ServerProcess) -> None:
    async with Client.connect(imaging.url, imaging.token) as client:
        missing = await finished(client, await submit(client, "true", image="image:none:v1"))

        assert missing.history.reason == Reason.ERR_IMAGE_PULL
        assert "none" in (missing.history.description or "")


async def test_a_public_image_out_of_reach_is_told_in_the_jobs_status(
    imaging: ServerProcess,
) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("registry-1.docker.io", 443), 5):
        pytest.skip("public registries can be reached from here")
    async with Client.connect(imaging.url, imaging.token) as client:
        job = await finished(client, await submit(client, "true", image="ubuntu"))
        own = await finished(client, await submit(client, "true", image="host"))

        said = [step.description or "" for step in job.statuses]
        assert any("docker.io cannot be reached" in one for one in said), said
        assert [one.history.exit_code for one in (job, own)] == [0, 0]


async def test_a_job_runs_in_an_image_that_comes_through_a_mirror(
    imaging: ServerProcess, tmp_path: Path
) -> None:
    """The public registry is another platform's."""
    host = imaging.url.removesuffix("/api/v1").removeprefix("http://")
    # Names that registries have: its host has none.
    table = (
        f'\n[[images.mirrors]]\nregistry = "other.example"\nhost = "{host}"\ninsecure = true\n'
        f'user = "anybody"\npassword = "{imaging.token}"\n'
    )
    async with aiohttp.ClientSession() as session:
        upstream = Registry(session, imaging.url, imaging.token)
        await push(upstream, f"{imaging.user}/public")
        with running_server(tmp_path / "data", settings=SETTINGS + table) as server:
            async with Client.connect(server.url, server.token) as client:
                image = f"other.example/{imaging.user}/public:v1"
                job = await submit(client, "cat /etc/passwd", image=image)

                assert await output_of(client, job) == docker_image.FILES["etc/passwd"].encode()
            mirror = Registry(session, server.url, server.token)
            listed = json.loads((await mirror.ask("GET", "/v2/_catalog")).body)["repositories"]

    assert listed == [image.rpartition(":")[0]]
