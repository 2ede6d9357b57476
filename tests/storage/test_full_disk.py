"""A full disk: said as ENOSPC, nothing half-written to be seen, all well once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.domain.errors import StorageFault
from neuro.domain.frames import END, Kind, encode_frame
from tests.storage.people import Person, Raw
from tests.storage.server import StorageServer

pytestmark = pytest.mark.root

TWO_MEGABYTES = b"x" * (2 << 20)
LARGE = encode_frame(Kind.PART, "", TWO_MEGABYTES) + END


@pytest.fixture
def full(tmp_path: Path) -> Iterator[StorageServer]:
    """A storage of one megabyte in all."""
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=True)
    try:
        with StorageServer(root) as server:
            yield server
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def test_every_way_of_writing_says_it(full: StorageServer) -> None:
    raw = Raw(full)
    headers = {"Content-Range": f"bytes 0-{len(TWO_MEGABYTES) - 1}/*"}

    created = raw("PUT", "/alice/a", "CREATE", body=TWO_MEGABYTES)
    (full.home("alice") / "a").write_bytes(b"")
    written = raw("PATCH", "/alice/a", "WRITE", body=TWO_MEGABYTES, headers=headers)
    (full.home("alice") / "a").unlink()
    uploaded = raw(
        "PUT", "/alice/b", "UPLOAD", body=LARGE, id="identifier", size=len(TWO_MEGABYTES)
    )

    for answer in (created, written, uploaded):
        assert (answer.status, answer.json["errno"]) == (400, "ENOSPC")
        assert "No space" in answer.json["error"]
    assert raw.names("/alice") == set()


def test_an_upload_that_found_no_room_takes_none(full: StorageServer) -> None:
    free = Raw(full)("GET", "/alice", "GETDISKUSAGE").json["free"]

    Raw(full)("PUT", "/alice/b", "UPLOAD", body=LARGE, id="identifier", size=len(TWO_MEGABYTES))

    assert Raw(full)("GET", "/alice", "GETDISKUSAGE").json["free"] >= free - 4096


def test_in_bulk_what_has_room_is_written_and_the_rest_told(full: StorageServer) -> None:
    raw = Raw(full)
    body = b"".join(encode_frame(Kind.FILE, f"{i}", b"x" * 300_000) for i in range(5))

    lines = raw("POST", "/alice", "BULK", body=body + END).lines

    assert lines[-1]["files"] == len(raw.names("/alice")) in (2, 3)
    assert {line["errno"] for line in lines[:-1]} == {"ENOSPC"}
    assert len(lines) - 1 + lines[-1]["files"] == 5


def test_the_client_says_it_and_goes_on_when_there_is_room(
    full: StorageServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 700_000)
    (full.home("alice") / "filler").write_bytes(b"x" * 900_000)
    alice = Person(full, "alice")

    with pytest.raises(StorageFault) as caught:
        alice.do(lambda s: s.upload_file(tmp_path / "file", "storage:file"))
    alice.all(lambda s: s.remove("storage:filler"))
    alice.do(lambda s: s.upload_file(tmp_path / "file", "storage:file"))

    assert caught.value.errno == "ENOSPC"
    assert (full.home("alice") / "file").stat().st_size == 700_000
