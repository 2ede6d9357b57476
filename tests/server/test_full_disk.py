"""A full disk: a clear answer, no harm to what runs, and all goes on once there is space."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.errors import PlatformError
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
