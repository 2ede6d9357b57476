"""A copy of a data folder is another installation: it never touches the original's jobs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from tests.postgres import PostgresServer
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import ServerProcess, running_server

pytestmark = pytest.mark.root


def copy(folder: Path, to: Path) -> ServerProcess:
    """What an administrator who looks whether a backup is good does first."""
    subprocess.run(["cp", "-a", str(folder), str(to)], check=True)
    return ServerProcess(to)


@pytest.mark.parametrize("knows_its_place", [True, False])
async def test_a_copy_leaves_the_jobs_of_the_original_alone(
    tmp_path: Path, knows_its_place: bool
) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            job = await running(client, "sleep 600", name="long")
        server.stop()
        if not knows_its_place:  # as a server of an earlier version left it
            record = tmp_path / "data/engines/sandbox/installation"
            record.write_text(record.read_text().split(', "place"')[0] + "}")
        second = copy(tmp_path / "data", tmp_path / "copy")
        server.start()

        second.start()
        async with Client.connect(second.url, second.token) as client:
            assert (await client.jobs.get(job.id)).history.reason == "NotFound"
            own = await submit(client, "echo mine")
            assert await output_of(client, own) == b"mine\n"
        second.stop()

        async with Client.connect(server.url, server.token) as client:
            assert (await client.jobs.get(job.id)).status is JobStatus.RUNNING
            after = await submit(client, "echo after")
            assert await output_of(client, after) == b"after\n"
            await client.jobs.kill(job.id)
            await finished(client, job)
    shutil.rmtree(tmp_path / "copy")


@pytest.mark.postgres
def test_a_copy_is_kept_off_the_database_of_the_original(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with (
        postgres_server.database() as url,
        running_server(tmp_path / "data", database=url) as server,
    ):
        subprocess.run(["cp", "-a", str(server.data_dir), str(tmp_path / "copy")], check=True)
        second = ServerProcess(tmp_path / "copy", database=url)

        with pytest.raises(RuntimeError, match="Another server works on this database"):
            second.start()
