"""Which GPUs jobs hold, over restarts of the server: none is ever two jobs' at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from neuro.client import Client
from neuro.domain.jobs import Job, JobStatus
from neuro.server.database.engine import Database
from tests.server.jobs import finished, running, submit
from tests.server_process import ServerProcess, running_server

SETTINGS = """
stop_grace_seconds = 0.1
[capacity]
cpu = 64
memory = "64G"
[[presets]]
name = "gpu"
cpu = 0.1
memory = "128M"
gpu = 1
[[presets]]
name = "cpu"
cpu = 0.1
memory = "128M"
"""
SEES = "echo gpus $NVIDIA_VISIBLE_DEVICES"
WAITS = f"{SEES}; sleep 1000"
RESTARTS: dict[str, Callable[[ServerProcess], object]] = {
    "killed": ServerProcess.kill,
    "stopped": ServerProcess.stop,
}


@pytest.fixture
def server(own_database: str | None, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on a machine with three GPUs."""
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl"):
        if os.geteuid() == 0:
            os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        else:
            (devices / name).touch()
    program = (str(Path(__file__).with_name("gpu_server.py")), str(devices))
    with running_server(
        tmp_path / "data", settings=SETTINGS, program=program, database=own_database
    ) as server:
        yield server


async def gpus_of(client: Client, job: Job) -> str:
    """What a job printed of the GPUs that it sees."""
    printed = b""
    async for chunk in client.jobs.logs(job.id):
        printed += chunk
        if b"gpus" in printed and printed.endswith(b"\n"):
            break
    return printed.decode().splitlines()[1].removeprefix("gpus").strip()


async def ended(client: Client, job: Job) -> None:
    await client.jobs.kill(job.id)
    await finished(client, job)


@pytest.mark.parametrize("restart", RESTARTS.values(), ids=RESTARTS)
async def test_jobs_keep_their_gpus_over_a_restart(
    server: ServerProcess, restart: Callable[[ServerProcess], object]
) -> None:
    async with Client.connect(server.url, server.token) as client:
        first, second, third = [await running(client, WAITS, preset_name="gpu") for _ in range(3)]
        assert [await gpus_of(client, job) for job in (first, second, third)] == ["0", "1", "2"]
        await ended(client, first)

    restart(server)
    server.start()

    async with Client.connect(server.url, server.token) as client:
        fourth = await running(client, WAITS, preset_name="gpu")
        assert await gpus_of(client, fourth) == "0"
        waiting = await submit(client, SEES, preset_name="gpu")
        assert (await client.jobs.get(waiting.id)).status is JobStatus.PENDING
        await ended(client, second)
        assert (await client.jobs.get((await finished(client, waiting)).id)).history.exit_code == 0


async def test_a_job_that_restarts_itself_keeps_its_gpu_over_a_restart(
    server: ServerProcess,
) -> None:
    async with Client.connect(server.url, server.token) as client:
        first = await running(client, WAITS, preset_name="gpu")
        again = await submit(
            client,
            f"sh -c '{SEES}; test -e /tmp/x || exit 1'",
            preset_name="gpu",
            restart_policy="always",
        )
        async for chunk in client.jobs.logs(again.id):
            # It may have begun anew before this asks.
            assert set(chunk.splitlines()) == {b"gpus 1"}
            break
        await ended(client, first)

    server.kill()
    server.start()

    async with Client.connect(server.url, server.token) as client:
        other = await running(client, WAITS, preset_name="gpu")
        printed = b""
        async for chunk in client.jobs.logs(again.id):
            printed += chunk
            if printed.count(b"\n") >= 3:
                break
        assert await gpus_of(client, other) == "0"
        assert set(printed.decode().splitlines()) == {"gpus 1"}
        await ended(client, again)


async def test_no_gpu_is_given_while_a_job_of_an_earlier_version_may_have_it(
    server: ServerProcess,
) -> None:
    async with Client.connect(server.url, server.token) as client:
        old = await running(client, WAITS, preset_name="gpu")
    server.stop()
    database = Database(server.database_url)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET gpus = NULL"))
    database.close()
    server.start()

    async with Client.connect(server.url, server.token) as client:
        job = await submit(client, f"sh -c '{SEES}'", preset_name="gpu")
        without = await submit(client, "true", preset_name="cpu")
        assert (await finished(client, without)).status is JobStatus.SUCCEEDED
        waits = await client.jobs.get(job.id)
        assert waits.status is JobStatus.PENDING
        assert "1 GPU (0 free)" in (waits.history.description or "")
        await ended(client, old)
        done = await finished(client, job)
        assert done.status is JobStatus.SUCCEEDED
