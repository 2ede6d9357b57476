"""A full disk: a clear answer, no harm to what runs, and all goes on once there is space."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import JobFilter, JobStatus
from tests.disks import fill
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import ServerProcess, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose data folder is a disk of 48 MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(folder)], check=True
    )
    try:
        with running_server(folder) as server:
            yield server
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def _submit_many(client: Client) -> None:
    for _ in range(50):
        await submit(client, "true", description="x" * 4000)


@pytest.mark.root
async def test_a_full_disk_is_said_and_nothing_is_lost(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        talker = await running(
            client, "while ! test -e /tmp/stop; do sleep 0.05; done; echo all of it"
        )

        filler = fill(server.data_dir)
        with pytest.raises(PlatformError, match="disk is full"):
            await _submit_many(client)
        async with client.jobs.exec(talker.id, "touch /tmp/stop") as session:
            while await session.read() is not None:
                pass
        assert (await client.jobs.get(talker.id)).id == talker.id
        filler.unlink()

        assert await output_of(client, talker) == b"up\nall of it\n"
        assert (await client.jobs.get(talker.id)).history.exit_code == 0
        again = await finished(client, await submit(client, "true"))
        assert again.history.exit_code == 0


def free(server: ServerProcess) -> int:
    """Bytes that are free on the server's disk."""
    return shutil.disk_usage(server.data_dir).free


def health(server: ServerProcess, path: str = "health") -> int:
    root = server.url.removesuffix("/api/v1")
    try:
        with urllib.request.urlopen(f"{root}/{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


async def over(client: Client, job_id: str) -> JobStatus:
    """How a job ended, asked for again and again as people do."""
    async with asyncio.timeout(15):
        while (job := await client.jobs.get(job_id)).status in {
            JobStatus.PENDING,
            JobStatus.RUNNING,
        }:
            await asyncio.sleep(0.1)
    return job.status


@pytest.mark.root
async def test_a_job_that_fills_the_disk_ends_and_gives_it_back(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        before = free(server)
        filling = "dd if=/dev/zero of=/tmp/fill bs=1M count=80; echo full; exit 3"

        job = await submit(client, f"sh -c '{filling}'")

        assert await over(client, job.id) is JobStatus.FAILED
        done = await finished(client, job)
        assert done.history.exit_code == 3
        assert b"No space left" in await output_of(client, job)
        async with asyncio.timeout(10):
            while free(server) < before - (4 << 20):
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(health, server) == 200
        assert (await finished(client, await submit(client, "true"))).history.exit_code == 0


@pytest.mark.root
async def test_jobs_end_and_are_killed_and_are_seen_so_on_a_full_disk(
    server: ServerProcess,
) -> None:
    async with Client.connect(server.url, server.token) as client:
        killed = await running(client, "sleep 600")
        ending = await running(client, "while ! test -e /dev/shm/stop; do sleep 0.05; done; exit 4")
        filler = fill(server.data_dir)
        with pytest.raises(PlatformError, match="disk is full"):
            await _submit_many(client)

        async with client.jobs.exec(ending.id, "touch /dev/shm/stop") as session:
            while await session.read() is not None:
                pass
        await client.jobs.kill(killed.id)

        assert await over(client, ending.id) is JobStatus.FAILED
        assert await over(client, killed.id) is JobStatus.CANCELLED
        while await asyncio.to_thread(health, server, "ready") != 503:
            await asyncio.sleep(0.05)
        assert (await client.jobs.get(ending.id)).history.exit_code == 4
        assert await asyncio.to_thread(health, server) == 200
        filler.unlink()
        assert (await finished(client, await submit(client, "true"))).history.exit_code == 0
        async for _ in client.jobs.list(JobFilter(limit=1)):
            pass  # what changed is in the database by now
        server.kill()
        server.start()
        assert (await client.jobs.get(ending.id)).history.exit_code == 4
        assert (await client.jobs.get(killed.id)).status is JobStatus.CANCELLED


@pytest.mark.root
async def test_a_server_that_was_killed_on_a_full_disk_starts_there(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        living = await running(client, "sleep 600")
        dying = await running(client, "while ! test -e /dev/shm/stop; do sleep 0.05; done; exit 5")
        filler = fill(server.data_dir)
        server.kill()
        await asyncio.to_thread(stop_from_outside)
        fill(server.data_dir)

        server.start()

        assert (await client.jobs.get(living.id)).status is JobStatus.RUNNING
        assert await over(client, dying.id) is JobStatus.FAILED
        assert (await client.jobs.get(dying.id)).history.exit_code == 5
        filler.unlink()
        await client.jobs.kill(living.id)
        assert await over(client, living.id) is JobStatus.CANCELLED
        assert (await finished(client, await submit(client, "true"))).history.exit_code == 0


@pytest.mark.root
async def test_a_server_ends_in_time_on_a_full_disk(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        job = await running(client, "sleep 600")
        filler = fill(server.data_dir)
        with pytest.raises(PlatformError, match="disk is full"):
            await _submit_many(client)
        await client.jobs.kill(job.id)
        await over(client, job.id)

    assert server.stop() == 0
    filler.unlink()
    server.start()
    async with Client.connect(server.url, server.token) as client:
        assert await over(client, job.id) in {JobStatus.FAILED, JobStatus.CANCELLED}


def stop_from_outside() -> None:
    """Make /dev/shm/stop in every job that waits for it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            waits = b"test -e /dev/shm/stop" in (process / "cmdline").read_bytes()
            inside = (process / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
        except OSError:
            continue
        if waits and inside:  # as the job's user 0: the file system knows no user of the machine
            enter = ["nsenter", "--target", process.name, "--user", "--mount", "--"]
            subprocess.run([*enter, "touch", "/dev/shm/stop"], check=True, capture_output=True)
