"""Jobs in images, on the docker engine and in the sandbox, beside ``docker run --rm`` of the same.

The daemon is one of the tests, in a network of its own, where the server and its clients go too:
``python -m benchmarks.containers`` is what runs there.
"""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from benchmarks.harness import SETTINGS, Result, ms, seconds
from neuro.client import Client
from neuro.domain.jobs import JobRequest
from tests.engines import docker_daemon, docker_image
from tests.server.registry.client import Registry, digest_of, manifest
from tests.server_process import ServerProcess, running_server

PAIRS = 30
_WORDS = ("echo", "hello")
_ENGINES = """
[engines.sandbox]
cpu = 2000
memory = "64G"
images = true
[engines.docker]
cpu = 2000
memory = "64G"
host = "unix://{socket}"
[[presets]]
name = "docker"
cpu = 1
memory = "256M"
engine = "docker"
[[presets]]
name = "sandbox"
cpu = 1
memory = "256M"
engine = "sandbox"
"""
# What each is asked to take at most, of `docker run --rm`; and the image that the job names.
_KINDS = {"docker": (1.2, docker_daemon.IMAGE), "sandbox": (0.15, "image:bench:v1")}


def run() -> Iterator[Result]:
    """All of it."""
    try:
        daemon = docker_daemon.process()
    except pytest.skip.Exception as skipped:
        yield Result("jobs in images", "not measured", "", str(skipped))
        return
    inside = ["nsenter", "--net", "--target", str(daemon), sys.executable, "-m", __name__]
    done = subprocess.run(inside, stdout=subprocess.PIPE, check=True)
    yield from msgspec.json.decode(done.stdout, type=list[Result])


def _measured() -> list[Result]:
    settings = SETTINGS + _ENGINES.format(socket=docker_daemon.socket_path())
    with (
        tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder,
        running_server(Path(folder) / "data", settings=settings) as running,
    ):
        return asyncio.run(_beside_docker(running))


async def _beside_docker(running: ServerProcess) -> list[Result]:
    async with aiohttp.ClientSession() as session:
        await _push(Registry(session, running.url, running.token), f"{running.user}/bench")
    results = []
    async with Client.connect(running.url, running.token) as client:
        for preset, (most, image) in _KINDS.items():
            pairs = []
            for turn in range(PAIRS + 2):  # the first ones find nothing warm
                mine = await _first_byte(client, image, preset)
                theirs = await asyncio.to_thread(seconds, _docker_run)
                if turn >= 2:
                    pairs.append((mine, theirs))
            ratio = statistics.median(mine / theirs for mine, theirs in pairs)
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            results.append(
                Result(
                    f"POST of a job in an image, engine {preset} → first byte of its output",
                    f"{ratio:.2f} of `docker run --rm`",
                    f"≤ {most}",
                    f"{ms(mine)} beside {ms(theirs)}",
                )
            )
    return results


async def _push(registry: Registry, repository: str) -> None:
    """Give the platform the image that the daemon has."""
    out = io.BytesIO()
    docker_image.write(out)
    layer = out.getvalue()
    body = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}, "config": {"Cmd": ["bash"]}}
    ).encode()
    for blob in (body, layer):
        await registry.push_blob(repository, blob)
    await registry.push_manifest(repository, "v1", manifest(body, [layer]))


async def _first_byte(client: Client, image: str, preset: str) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    request = JobRequest(image=image, command=" ".join(_WORDS), preset_name=preset)
    job = (await client.jobs.submit(request)).job
    async for _ in client.jobs.logs(job.id):
        return loop.time() - started
    raise AssertionError(f"{job.id} on {preset} printed nothing")


def _docker_run() -> None:
    docker_daemon.docker("run", "--rm", docker_daemon.IMAGE, *_WORDS)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_measured()))
