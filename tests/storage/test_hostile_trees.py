"""Trees that were made to be costly: very deep ones, very wide ones, files under a lease."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.server.storage import tree as tree_module
from neuro.server.storage.confine import Fence, Place
from neuro.server.storage.routes import MAX_FETCH_PATHS
from neuro.server.storage.tree import Tree
from tests.storage.people import Raw
from tests.storage.server import StorageServer

LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


class Counted(Fence):
    """A fence that counts what it opens."""

    opened = 0

    def open(self, *args: object, **options: object) -> int:
        self.opened += 1
        return super().open(*args, **options)  # type: ignore[arg-type]


def test_a_deep_folder_takes_few_looks_from_the_top(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.make_home("alice")
    tree.fence.close()
    tree.fence = counted = Counted(tmp_path)

    for fence in (1, 400):
        tree.make_folders(Place(("alice", str(fence), *["a"] * 398), fence))

    assert (tmp_path / "alice/400" / "/".join(["a"] * 398)).is_dir()
    assert counted.opened < 60
    tree.close()


def test_a_tree_deeper_than_any_path_is_removed(server: StorageServer, raw: Raw) -> None:
    home = server.home("alice")
    current = os.open(home, os.O_RDONLY)
    for name in ["deep", *["a" * 250] * 20]:
        os.mkdir(name, dir_fd=current)
        above, current = current, os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)
    (home / "deep/beside").mkdir()

    answer = raw("DELETE", "/alice/deep", "DELETE")

    assert answer.status == 204
    assert not (home / "deep").exists()


def test_a_wide_folder_is_not_searched_for_a_name(
    server: StorageServer, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = server.home("alice")
    (home / "\ufffd").touch()
    Path(os.fsdecode(os.fsencode(home) + b"/x\xff")).touch()
    for number in range(30):
        (home / f"file-{number}").touch()
    assert raw("GET", "/alice/x\ufffd", "GETFILESTATUS").status == 200

    monkeypatch.setattr(tree_module, "MAX_NAMES_SEARCHED", 20)
    answer = raw("GET", "/alice/y\ufffd", "GETFILESTATUS")

    assert (answer.status, answer.json["errno"]) == (400, "EILSEQ")
    # A name that has the sign itself is found without a search.
    assert raw("GET", "/alice/\ufffd", "GETFILESTATUS").status == 200


def test_a_fetch_names_so_many_files(server: StorageServer, raw: Raw) -> None:
    server.home("alice")
    body = b'{"paths": [' + b",".join([b'"a"'] * (MAX_FETCH_PATHS + 1)) + b"]}"

    assert raw("POST", "/alice", "FETCH", body=body).status == 413


@pytest.fixture
def leased(server: StorageServer) -> Iterator[Path]:
    """A file that another process has a lease on, and does not give up."""
    file = server.home("alice") / "leased"
    file.write_bytes(b"text")
    with subprocess.Popen(
        [sys.executable, "-c", LEASE, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield file
        assert holder.stdin is not None
        holder.stdin.close()


def test_a_file_under_a_lease_is_busy(leased: Path, raw: Raw) -> None:
    answers = [
        raw("GET", "/alice/leased", "OPEN"),
        raw("PUT", "/alice/leased", "CREATE", body=b"new"),
        raw("PATCH", "/alice/leased", "WRITE", body=b"n", headers={"Content-Range": "bytes 0-0/*"}),
    ]

    assert [(answer.status, answer.json["errno"]) for answer in answers] == [(400, "EBUSY")] * 3
    assert leased.name in answers[0].json["error"]
