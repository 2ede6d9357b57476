"""The folder of the storage is a setting: files and volumes are there, and a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from tests.server.jobs import finished, submit
from tests.server_process import SETTINGS, ServerProcess, running_server

pytestmark = pytest.mark.root


async def test_files_and_volumes_are_in_the_folder_of_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    settings = f'{SETTINGS}\n[storage]\nfolder = "{folder}"\n'
    with running_server(tmp_path / "data", settings=settings) as server:
        async with Client.connect(server.url, server.token) as client:
            await client.storage.create("storage:given", b"in\n")
            uri = f"storage://default/{server.user}"
            volume = {"src_storage_uri": uri, "dst_path": "/v", "read_only": False}
            job = await submit(client, "sh -c 'cat /v/given > /v/made'", volumes=[volume])

            assert (await finished(client, job)).status is JobStatus.SUCCEEDED
            assert await client.storage.read_bytes("storage:made") == b"in\n"
        assert (folder / server.user / "made").read_bytes() == b"in\n"
        assert not list((tmp_path / "data" / "storage").iterdir())


def test_a_folder_that_cannot_be_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = f'{SETTINGS}\n[storage]\nfolder = "{tmp_path}/file/storage"\n'
    server = ServerProcess(tmp_path / "data", settings=settings)

    with pytest.raises(RuntimeError, match=r"The folder of the storage, .*/file/storage, cannot"):
        server.start()

    assert "Traceback" not in server.log()
