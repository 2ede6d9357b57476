"""To whom of the machine the storage's files belong, where the server runs as root."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from neuro.engines.sandbox.identities import BLOCK, STORAGE
from neuro.server.registry.blobs import IMAGES
from neuro.server.storage.confine import Place
from neuro.server.storage.staging import Staging
from neuro.server.storage.tree import Tree
from tests.server.jobs import finished, output_of, submit
from tests.server_process import ServerProcess, running_server

ONLY_SQLITE = "Files have an owner on the disk, and no record."

pytestmark = pytest.mark.root


def owner_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def volume(user: str, folder: str) -> dict[str, object]:
    source = f"storage://default/{user}/{folder}"
    return {"volumes": [{"src_storage_uri": source, "dst_path": "/v", "read_only": False}]}


def shell(script: str) -> str:
    return f"sh -ec {shlex.quote(script)}"


@pytest.fixture
def home(server: ServerProcess) -> Path:
    """The owner's files, on the machine."""
    return server.data_dir / "storage" / server.user


async def test_all_that_a_job_writes_belongs_to_the_storages_user(
    client: Client, home: Path
) -> None:
    await client.storage.mkdir("storage:owned")
    script = (
        "cd /v; umask 0; mkdir d; mkfifo pipe; ln -s d link; echo x > plain; cp /bin/true setuid;"
        " chmod 6755 setuid; cp /bin/true d/setgid; chmod 2711 d/setgid; chmod 3777 d"
    )

    done = await finished(
        client, await submit(client, shell(script), **volume(client.user, "owned"))
    )

    assert done.status is JobStatus.SUCCEEDED, await output_of(client, done)
    owned = home / "owned"
    made = {path.relative_to(owned): owner_of(path) for path in owned.rglob("*")}
    assert len(made) == 6
    assert set(made.values()) == {(STORAGE, STORAGE)}
    assert stat.S_IMODE((owned / "setuid").stat().st_mode) == 0o6755


async def test_other_users_of_a_job_are_nobody_of_the_machine(client: Client, home: Path) -> None:
    await client.storage.mkdir("storage:given")
    script = "cp /bin/true /v/f; chown 1000:100 /v/f; chmod 6755 /v/f; stat -c %u:%g /v/f"

    done = await submit(client, shell(script), privileged=True, **volume(client.user, "given"))

    assert await output_of(client, done) == b"1000:100\n"
    assert owner_of(home / "given" / "f") == (STORAGE + 1000, STORAGE + 100)
    assert STORAGE + 1000 < STORAGE + BLOCK


async def test_a_setuid_file_of_the_storage_gives_a_job_nothing(client: Client, home: Path) -> None:
    await client.storage.mkdir("storage:setuid")
    program = home / "setuid" / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)  # root's own, as an old server's job or an administrator left it
    script = "setpriv --reuid 1000 --clear-groups /v/id -u"

    done = await submit(client, shell(script), privileged=True, **volume(client.user, "setuid"))

    assert await output_of(client, done) == b"1000\n"


def test_a_home_that_was_made_just_before_a_kill_is_given_to_the_storages_user(
    tmp_path: Path,
) -> None:
    os.chown(tmp_path, STORAGE, STORAGE)
    (tmp_path / "anna").mkdir()
    tree = Tree(tmp_path)

    tree.make_home("anna")

    tree.close()
    assert owner_of(tmp_path / "anna") == (STORAGE, STORAGE)


def test_a_folder_that_was_made_just_before_a_kill_is_given_to_the_storages_user(
    tmp_path: Path,
) -> None:
    os.chown(tmp_path, STORAGE, STORAGE)
    tree = Tree(tmp_path)
    tree.make_home("anna")
    (tmp_path / "anna/data").mkdir()
    (tmp_path / "anna/.neuro-uploads").mkdir(0o700)

    tree.make_folders(Place(("anna", "data", "new"), 1))
    os.close(Staging(tree).open("anna"))

    tree.close()
    made = [tmp_path / "anna" / name for name in ("data", "data/new", ".neuro-uploads")]
    assert [owner_of(path) for path in made] == [(STORAGE, STORAGE)] * 3


def test_an_old_servers_files_are_given_to_the_storages_user(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    old = data / "storage" / "anna" / "old"
    old.mkdir(parents=True)
    (old / "file").write_text("old\n")
    (old / "setuid").write_text("old\n")
    (old / "setuid").chmod(0o6755)
    (old / "link").symlink_to(outside)
    (data / "storage" / "linked").symlink_to(outside)
    (old / "-R").touch()
    os.mkfifo(old / os.fsdecode(b"\xff pipe\n"))

    with running_server(data):
        pass

    storage = data / "storage"
    found = {path for path in storage.rglob("*") if IMAGES not in path.parts}  # the server's own
    assert {owner_of(path) for path in (storage, *found)} == {(STORAGE, STORAGE)}
    assert {owner_of(path) for path in (outside, *outside.rglob("*"))} == {(0, 0)}
    assert owner_of(data) == owner_of(data / "keys") == (0, 0)
    assert stat.S_IMODE((old / "setuid").stat().st_mode) == 0o755


async def test_a_job_changes_an_old_servers_files(tmp_path: Path) -> None:
    storage = tmp_path / "data" / "storage"
    server = ServerProcess(tmp_path / "data")
    server.start()
    old = storage / server.user / "old"
    server.stop()
    old.mkdir(parents=True)
    (old / "file").write_text("old\n")
    os.chown(storage, 0, 0)  # it comes last: the first start may have been interrupted

    server.start()
    try:
        async with Client.connect(server.url, server.token) as client:
            script = "echo new >> /v/file; cat /v/file"
            done = await submit(client, shell(script), **volume(server.user, "old"))

            assert await output_of(client, done) == b"old\nnew\n"
    finally:
        server.stop()
    assert owner_of(storage) == (STORAGE, STORAGE)
