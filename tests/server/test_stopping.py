"""SIGTERM: the server leaves at once, streams end, jobs go on and are adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from tests.server.jobs import finished, output_of, running
from tests.server_process import ServerProcess, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "data") as server:
        yield server


async def test_the_server_leaves_while_logs_are_followed_and_the_job_goes_on(
    server: ServerProcess,
) -> None:
    async with Client.connect(server.url, server.token) as client:
        job = await running(client, "while ! test -e /tmp/stop; do sleep 0.05; done; echo over")
        follower = asyncio.create_task(output_of(client, job))
        async with client.jobs.attach(job.id):
            # It would wait for half a minute, and we do not, if it waited for the streams.
            code = await asyncio.to_thread(server.stop)
        with pytest.raises(ServerUnreachable):
            await follower
    assert code == 0

    server.start()

    async with Client.connect(server.url, server.token) as client:
        async with client.jobs.exec(job.id, "touch /tmp/stop") as session:
            while await session.read() is not None:
                pass
        assert await output_of(client, job) == b"up\nover\n"
        assert (await finished(client, job)).history.exit_code == 0


async def test_two_servers_never_share_a_folder(server: ServerProcess) -> None:
    second = ServerProcess(server.data_dir)

    with pytest.raises(RuntimeError, match="already"):
        second.start()


async def test_a_folder_refuses_a_database_that_does_not_know_its_jobs(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.stop()
    forgetful = ServerProcess(server.data_dir, database=f"sqlite:///{tmp_path / 'other.db'}")

    with pytest.raises(RuntimeError, match="belongs to another database"):
        forgetful.start()

    server.start()


async def test_a_taken_port_is_said_before_anything_is_touched(
    server: ServerProcess, tmp_path: Path
) -> None:
    second = ServerProcess(tmp_path / "other")
    second.port = server.port

    with pytest.raises(RuntimeError, match=f"Cannot listen on 127.0.0.1:{server.port}"):
        second.start()

    assert not (tmp_path / "other" / "neuro.db").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("nonsense", "server.toml"),
        ("colour = 'red'", "colour"),
        ("[[presets]]\nname = 'x'\ncpu = 0\nmemory = '1G'", r"presets\[1\].cpu is 0"),
        ("[[presets]]\nname = 'x'\ncpu = 1\nmemory = 'much'", "'much' is not a size"),
        ("cluster = 'No Good'", "Invalid cluster name"),
    ],
)
async def test_bad_settings_are_named_with_their_file(
    tmp_path: Path, settings: str, words: str
) -> None:
    server = ServerProcess(tmp_path / "data", settings=settings)

    with pytest.raises(RuntimeError, match=words):
        server.start()
