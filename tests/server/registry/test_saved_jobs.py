"""Running jobs become images of the platform's own registry (docs/reference/wire-protocol.md)."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client, Job
from neuro.domain.errors import Conflict, InvalidInput, NotFound
from neuro.domain.jobs import JobStatus, SaveEvent
from neuro.domain.permissions import Action
from tests.server.jobs import finished, output_of, submit
from tests.server.registry.client import Registry
from tests.server.registry.test_jobs_in_images import SETTINGS, push
from tests.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def imaging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose jobs run in images."""
    folder: Path = tmp_path_factory.mktemp("server") / "data"
    with running_server(folder, settings=SETTINGS) as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def client(imaging: ServerProcess) -> AsyncIterator[Client]:
    async with Client.connect(imaging.url, imaging.token) as client:
        yield client


async def began(client: Client, script: str, image: str) -> Job:
    """A job that goes on, and has run a script."""
    job = await submit(client, f"sh -c '{script}; echo ready; exec cat'", image=image, stdin=True)
    async with asyncio.timeout(60):
        async for text in client.jobs.logs(job.id):
            if b"ready" in text:
                return job
    raise AssertionError("the job has ended")


async def save(client: Client, job: Job, image: str) -> list[SaveEvent]:
    return [event async for event in client.jobs.save(job.id, client.images.image(image))]


def _begun(server: ServerProcess) -> tuple[int, int]:
    """How many uploads have begun so far, and how many layers another repository gave."""
    with urllib.request.urlopen(server.url.removesuffix("/api/v1") + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("neuro_http_requests_total{")]
    begun = [line for line in counted if 'method="POST"' in line and "/blobs/uploads" in line]

    def of_status(status: int) -> int:
        return sum(int(float(one.split()[-1])) for one in begun if f'status="{status}"' in one)

    return of_status(202), of_status(201)


async def test_a_later_job_runs_in_what_was_saved_of_one(
    imaging: ServerProcess, client: Client, session: aiohttp.ClientSession
) -> None:
    await push(Registry(session, imaging.url, imaging.token), f"{imaging.user}/base", Env=["A=b"])
    job = await began(client, "echo kept > /made", "image:base:v1")

    before = _begun(imaging)
    told = await save(client, job, "image:mine:v1")
    uploaded, mounted = (now - then for now, then in zip(_begun(imaging), before, strict=True))
    later = await submit(client, "sh -c 'cat /made; echo $A'", image="image:mine:v1")

    assert uploaded == 2  # what the job wrote, and how it is to be run
    assert mounted > 0  # what the base has, which need not be sent
    assert [event.status for event in told][:2] == ["CommitStarted", "CommitFinished"]
    pushed = [event.progress_detail for event in told if event.progress_detail is not None]
    assert pushed[-1].current == pushed[-1].total
    assert (await output_of(client, later)).split() == [b"kept", b"b"]
    assert (await client.jobs.get(job.id)).status is JobStatus.RUNNING
    await client.jobs.kill(job.id)


async def test_a_job_on_the_machines_userland_is_saved_too(
    imaging: ServerProcess, client: Client, session: aiohttp.ClientSession
) -> None:
    job = await began(client, "echo kept > /made", "host")

    await save(client, job, "image:of-host:v1")

    registry = Registry(session, imaging.url, imaging.token)
    home = f"/v2/{imaging.user}/of-host"
    manifest = json.loads((await registry.ask("GET", f"{home}/manifests/v1")).body)
    config = await registry.ask("GET", f"{home}/blobs/{manifest['config']['digest']}")
    assert json.loads(config.body)["config"]["Labels"] == {"neuro.base": "host"}
    await client.jobs.kill(job.id)


async def test_only_who_may_push_an_image_saves_a_job_as_it(
    imaging: ServerProcess, client: Client
) -> None:
    job = await began(client, "true", "host")
    await client.users.add("bob")
    token = await client.users.create_token("bob")
    async with Client.connect(imaging.url, token.token) as bob:
        with pytest.raises(NotFound):
            await save(bob, job, "image:theirs:v1")
        await client.permissions.share(
            f"job://default/{imaging.user}/{job.id}", "bob", Action.WRITE
        )
        with pytest.raises(NotFound, match="was not found, or is not yours to write"):
            await save(bob, job, f"image:/{imaging.user}/theirs:v1")

        await save(bob, job, "image:theirs:v1")

        assert [str(uri) async for uri in bob.images.list()] == ["image://default/bob/theirs"]
    await client.jobs.kill(job.id)


async def test_what_cannot_be_saved_is_told(client: Client) -> None:
    over = await finished(client, await submit(client, "true", image="host"))
    with pytest.raises(NotFound, match="is not running: its status is succeeded"):
        await save(client, over, "image:mine:v1")

    job = await began(client, "echo > /.wh.x", "host")
    with pytest.raises(InvalidInput, match="not a digest"):
        await save(client, job, f"image:mine@sha256:{'0' * 64}")
    with pytest.raises(Conflict, match="Give it another name"):
        await save(client, job, "image:unmade:v1")
    assert "image://default/unmade" not in [str(uri) async for uri in client.images.list()]
    await client.jobs.kill(job.id)


async def test_a_client_that_goes_away_leaves_a_job_that_can_be_saved(client: Client) -> None:
    job = await began(client, "head -c 200000000 /dev/urandom > /large", "host")
    other = await began(client, "true", "host")

    async for event in client.jobs.save(job.id, client.images.image("image:left:v1")):
        assert event.status == "CommitStarted"
        with pytest.raises(Conflict, match="is being saved already"):
            await save(client, job, "image:twice:v1")
        with pytest.raises(Conflict, match="one is saved at a time"):
            await save(client, other, "image:other:v1")
        break

    async with asyncio.timeout(60):
        while True:
            try:
                await save(client, job, "image:again:v1")
                break
            except Conflict:  # until the server has noticed
                await asyncio.sleep(0.1)
    found = [uri.segments[-1] async for uri in client.images.list()]
    assert "again" in found
    assert "left" not in found
    await client.jobs.kill(job.id)
    await client.jobs.kill(other.id)
