"""The folder of the storage is a setting: files and volumes are there, and a wrong one is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from tests.server.jobs import finished, output_of, submit
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


def test_a_storage_that_is_not_mounted_does_not_begin_on_the_local_disk(tmp_path: Path) -> None:
    settings = f'{SETTINGS}\n[storage]\nfolder = "{tmp_path}/mounted/storage"\n'
    server = ServerProcess(tmp_path / "data", settings=settings)

    with pytest.raises(RuntimeError, match=r"neither is .*/mounted: is it mounted\?"):
        server.start()

    assert not (tmp_path / "mounted").exists()


@pytest.mark.parametrize("mode", [0o700, 0o755])
async def test_jobs_never_see_the_folder_where_the_machine_shows_them_its_own(
    tmp_path: Path, mode: int
) -> None:
    # What is below /opt is the machine's own userland, which every job sees.
    with tempfile.TemporaryDirectory(dir="/opt") as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "storage"
        folder.mkdir(mode)
        settings = f'{SETTINGS}\n[storage]\nfolder = "{folder}"\n'
        with running_server(tmp_path / "data", settings=settings) as server:
            async with Client.connect(server.url, server.token) as client:
                await client.storage.create("storage:secret", b"mine\n")
                for path in (folder / server.user, folder / server.user / "secret"):
                    path.chmod(0o755)

                job = await submit(client, f"sh -c 'ls -d {place}; ls {folder}/{server.user}'")

                seen = (await output_of(client, job)).decode()
                assert seen.startswith(f"{place}\n")
                assert "No such file" in seen or "Permission denied" in seen
