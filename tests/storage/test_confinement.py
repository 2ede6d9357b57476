"""Symbolic links that jobs plant lead nowhere outside: every operation, on both kinds of kernel."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.frames import END, Kind, encode_frame
from neuro.domain.permissions import Action
from neuro.domain.uris import parse_uri
from neuro.server.storage.confine import has_openat2
from tests.storage.people import Raw
from tests.storage.server import StorageServer

SECRET = b"outside of the storage"
RANGE = {"Content-Range": "bytes 0-2/*"}


@pytest.fixture
def trap(either_kernel: StorageServer, tmp_path: Path) -> StorageServer:
    """alice's home with links outward: to a file, to a folder, upwards, and to bob's files."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(SECRET)
    home = either_kernel.home("alice")
    (either_kernel.home("bob") / "file").write_bytes(SECRET)
    (home / "to-file").symlink_to(outside / "file")
    (home / "to-folder").symlink_to(outside)
    (home / "up").symlink_to("../../outside")
    (home / "to-bob").symlink_to("../bob")
    (home / "proc").symlink_to("/proc/self/root" + str(outside))
    (home / "loop").symlink_to("loop")
    (home / "mine").write_bytes(b"alice's")
    return either_kernel


def outside_is_untouched(server: StorageServer) -> bool:
    outside = server.root.parent / "outside"
    return (
        sorted(p.name for p in outside.iterdir()) == ["file"]
        and (outside / "file").read_bytes() == SECRET
        and sorted(p.name for p in (server.root / "bob").iterdir()) == ["file"]
        and (server.root / "bob/file").read_bytes() == SECRET
    )


FOLDERS = ["to-folder", "up", "to-bob", "proc", "loop"]
FILES = ["to-file", *(f"{folder}/file" for folder in FOLDERS)]


@pytest.mark.parametrize("user", ["alice", "admin"])
@pytest.mark.parametrize("path", FILES)
def test_no_file_outside_is_read_or_written(trap: StorageServer, user: str, path: str) -> None:
    raw = Raw(trap, user)
    answers = [
        raw("GET", f"/alice/{path}", "OPEN"),
        raw("PUT", f"/alice/{path}", "CREATE", body=b"abc"),
        raw("PATCH", f"/alice/{path}", "WRITE", body=b"abc", headers=RANGE),
    ]

    assert [answer.status for answer in answers] == [400] * 3
    assert {answer.json["errno"] for answer in answers} == {"EACCES"}
    assert outside_is_untouched(trap)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_outside_is_listed_or_changed(trap: StorageServer, folder: str) -> None:
    raw = Raw(trap)
    bulk = encode_frame(Kind.FILE, "new", b"x") + END
    upload = {"id": "identifier", "size": 0}
    answers = [
        raw("GET", f"/alice/{folder}", "LISTSTATUS"),
        raw("GET", f"/alice/{folder}/file", "GETFILESTATUS"),
        raw("GET", f"/alice/{folder}", "GETDISKUSAGE"),
        raw("PUT", f"/alice/{folder}/new", "CREATE", body=b"abc"),
        raw("PUT", f"/alice/{folder}/new", "MKDIRS"),
        raw("PUT", f"/alice/{folder}", "MKDIRS"),
        raw("PUT", f"/alice/{folder}/new", "UPLOAD", body=END, **upload),
        raw("POST", f"/alice/{folder}", "BULK", body=bulk),
        raw("POST", f"/alice/{folder}", "FETCH", body=b'{"paths": ["file"]}'),
        raw("POST", f"/alice/{folder}/file", "RENAME", destination="/alice/got"),
        raw("POST", "/alice/mine", "RENAME", destination=f"/alice/{folder}/put"),
        raw("DELETE", f"/alice/{folder}/file", "DELETE"),
    ]

    assert [(answer.status, answer.json["errno"]) for answer in answers] == [(400, "EACCES")] * 12
    assert outside_is_untouched(trap)


def test_bulk_files_do_not_go_through_links(trap: StorageServer) -> None:
    raw = Raw(trap)
    body = b"".join(encode_frame(Kind.FILE, f"{folder}/new", b"x") for folder in FOLDERS)

    written = raw("POST", "/alice", "BULK", body=body + END)
    read = raw("POST", "/alice", "FETCH", body=b'{"paths": ["to-bob/file", "to-file"]}')

    assert [line.get("errno") for line in written.lines[:-1]] == ["EACCES"] * 5
    assert written.lines[-1]["files"] == 0
    assert SECRET not in read.body
    assert outside_is_untouched(trap)


def test_nobody_reaches_what_the_server_keeps_beside_the_folders_of_owners(
    either_kernel: StorageServer,
) -> None:
    (either_kernel.home("alice") / "link").symlink_to("../.own")
    (either_kernel.root / ".own").write_bytes(SECRET)
    admin = Raw(either_kernel, "admin")

    fetched = [
        admin("POST", folder, "FETCH", body=b'{"paths": ["%s"]}' % path)
        for folder, path in (("/", b".own"), ("/alice", b"link"))
    ]
    changed = [
        admin("PUT", "/.own", "CREATE", body=b"abc"),
        admin("DELETE", "/.own", "DELETE"),
        admin("POST", "/alice", "RENAME", destination="/.own"),
        admin("PUT", "/alice/link", "CREATE", body=b"abc"),
    ]

    assert admin.names("/") == {"alice"}
    assert all(SECRET not in answer.body for answer in fetched)
    assert {answer.status for answer in changed} == {400}
    assert (either_kernel.root / ".own").read_bytes() == SECRET


def test_links_are_told_as_links_with_their_target(trap: StorageServer) -> None:
    status = Raw(trap)("GET", "/alice/to-file", "GETFILESTATUS").json["FileStatus"]
    listing = Raw(trap)("GET", "/alice", "LISTSTATUS").json["FileStatuses"]["FileStatus"]

    assert status["type"] == "SYMLINK"
    targets = {entry["path"]: entry.get("target") for entry in listing}
    assert (targets["to-bob"], targets["mine"]) == ("../bob", None)


def test_removal_takes_the_link_and_not_what_it_leads_to(trap: StorageServer) -> None:
    home = trap.home("alice")
    (home / "tree").mkdir()
    (home / "tree/link").symlink_to("../../bob")

    answer = Raw(trap)("DELETE", "/alice/tree", "DELETE", recursive="true")
    link = Raw(trap)("DELETE", "/alice/to-folder", "DELETE", recursive="true")

    assert (answer.status, link.status) == (204, 204)
    assert not (home / "tree").exists()
    assert not (home / "to-folder").is_symlink()
    assert outside_is_untouched(trap)


def test_an_upload_replaces_a_link_instead_of_writing_through_it(trap: StorageServer) -> None:
    answer = Raw(trap)("PUT", "/alice/to-file", "UPLOAD", body=END, id="identifier", size=0)

    assert answer.status == 201
    assert not (trap.home("alice") / "to-file").is_symlink()
    assert outside_is_untouched(trap)


def test_an_owners_folder_that_is_a_link_is_refused(either_kernel: StorageServer) -> None:
    (either_kernel.home("bob") / "file").write_bytes(SECRET)
    (either_kernel.root / "eve").symlink_to("bob")

    answer = Raw(either_kernel, "admin")("GET", "/eve/file", "OPEN")

    assert (answer.status, answer.json["errno"]) == (400, "EACCES")


def test_links_inside_the_home_are_followed(server: StorageServer) -> None:
    home = server.home("alice")
    (home / "runs/17").mkdir(parents=True)
    (home / "runs/17/model").write_bytes(b"weights")
    (home / "latest").symlink_to("runs/17")
    (home / "best").symlink_to("latest/model")

    assert has_openat2(), "this kernel is older than 5.6: links are refused there"
    assert Raw(server)("GET", "/alice/latest/model", "OPEN").body == b"weights"
    assert Raw(server)("GET", "/alice/best", "OPEN").body == b"weights"
    assert Raw(server).names("/alice/latest") == {"model"}


def test_a_link_in_a_share_does_not_lead_to_its_owners_other_files(server: StorageServer) -> None:
    home = server.home("alice")
    (home / "shared").mkdir()
    (home / "private").write_bytes(SECRET)
    (home / "shared/planted").symlink_to("../private")
    server.tokens.add("friend", ("storage://default/alice/shared", Action.WRITE))

    theirs = Raw(server, "friend")("GET", "/alice/shared/planted", "OPEN")
    own = Raw(server, "alice")("GET", "/alice/shared/planted", "OPEN")

    assert (theirs.status, theirs.json["errno"]) == (400, "EACCES")
    assert own.body == SECRET


def test_a_folder_swapped_for_a_link_all_the_time_never_leads_out(trap: StorageServer) -> None:
    home = trap.home("alice")
    (home / "real").mkdir()
    (home / "real/file").write_bytes(b"inside")
    (home / "evil").symlink_to("../bob")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(home / "real", home / "flip")
            os.rename(home / "evil", home / "real")
            os.rename(home / "real", home / "evil")
            os.rename(home / "flip", home / "real")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        bodies = {Raw(trap)("GET", "/alice/real/file", "OPEN").body for _ in range(300)}
        for _ in range(100):
            Raw(trap)("PUT", "/alice/real/new", "CREATE", body=b"x")
    finally:
        stop.set()
        swapper.join()

    assert b"inside" in bodies
    assert SECRET not in bodies
    assert outside_is_untouched(trap)


def test_pipes_sockets_and_devices_are_listed_and_removed_but_never_opened(
    either_kernel: StorageServer,
) -> None:
    home = either_kernel.home("alice")
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket"))
        raw = Raw(either_kernel)

        for name in ("pipe", "socket"):
            answers = [
                raw("GET", f"/alice/{name}", "OPEN"),
                raw("PUT", f"/alice/{name}", "CREATE", body=b"x"),
                raw("PATCH", f"/alice/{name}", "WRITE", body=b"abc", headers=RANGE),
            ]
            assert [a.json.get("errno") for a in answers] == ["EINVAL"] * 3
            status = raw("GET", f"/alice/{name}", "GETFILESTATUS").json["FileStatus"]
            assert status["type"] == "UNKNOWN"
            assert raw("DELETE", f"/alice/{name}", "DELETE").status == 204


@pytest.mark.root
def test_a_device_that_a_job_made_is_never_opened(either_kernel: StorageServer) -> None:
    os.mknod(either_kernel.home("alice") / "zero", 0o20666, os.makedev(1, 5))

    answer = Raw(either_kernel)("GET", "/alice/zero", "OPEN")

    assert (answer.status, answer.json["errno"]) == (400, "EINVAL")


class TestVolumes:
    """``host_path``: what a job's volume is mounted from."""

    def test_it_is_the_real_folder_or_file(self, either_kernel: StorageServer) -> None:
        (either_kernel.home("alice") / "data").mkdir()
        (either_kernel.home("alice") / "data/file").touch()
        service = either_kernel.service

        for path in ("data", "data/file"):
            uri = parse_uri(f"storage://default/alice/{path}")
            assert service.host_path(uri, create=False) == either_kernel.root / "alice" / path

    def test_it_makes_missing_folders_only_when_asked(self, either_kernel: StorageServer) -> None:
        uri = parse_uri("storage://default/alice/a/b")

        with pytest.raises(NotFound, match="storage://default/alice/a/b"):
            either_kernel.service.host_path(uri, create=False)
        assert either_kernel.service.host_path(uri, create=True).is_dir()

    @pytest.mark.parametrize("create", [False, True])
    @pytest.mark.parametrize("path", [*FOLDERS, "to-file", "to-bob/new", "inner"])
    def test_no_link_is_followed_not_even_inside(
        self, trap: StorageServer, path: str, create: bool
    ) -> None:
        (trap.home("alice") / "inside").mkdir()
        (trap.home("alice") / "inner").symlink_to("inside")
        uri = parse_uri(f"storage://default/alice/{path}")

        with pytest.raises(InvalidInput, match="symbolic link"):
            trap.service.host_path(uri, create=create)
        assert outside_is_untouched(trap)

    @pytest.mark.parametrize("uri", ["storage://other/alice", "job://default/alice/x"])
    def test_other_clusters_and_other_things_are_refused(
        self, either_kernel: StorageServer, uri: str
    ) -> None:
        with pytest.raises(InvalidInput, match="storage://default"):
            either_kernel.service.host_path(parse_uri(uri), create=False)
