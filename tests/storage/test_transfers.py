"""Copying with the SDK, on both of its transports, to servers with and without bulk transfers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.client.storage import Failed, Silent
from neuro.client.storage.filters import Filter, Rule
from neuro.domain.errors import InvalidInput, NotFound, StorageFault
from tests.storage.people import Person
from tests.storage.proxy import Proxy
from tests.storage.server import StorageServer

LARGE = os.urandom(3_500_000)
SMALL = {f"folder-{i % 5}/file-{i}": os.urandom(i * 37) for i in range(300)}


class Told(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.files = self.size = self.count = 0
        self.done: list[str] = []
        self.failures: list[Failed] = []
        self.left_out: list[str] = []

    def expect(self, files: int, size: int) -> None:
        self.files += files
        self.size += size

    def moved(self, count: int) -> None:
        self.count += count

    def copied(self, source: str, target: str) -> None:
        self.done.append(target)

    def skipped(self, source: str, why: str) -> None:
        self.left_out.append(source)

    def failed(self, failure: Failed) -> None:
        self.failures.append(failure)


@pytest.fixture(params=["bulk", "reference"])
def any_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorageServer]:
    """A server of ours, and one that knows only the reference's operations."""
    features = ("storage-bulk",) if request.param == "bulk" else ()
    with StorageServer(tmp_path / "root", features=features) as running:
        yield running


@pytest.fixture(params=["blocking", "aiohttp"])
def anna(request: pytest.FixtureRequest, any_server: StorageServer) -> Person:
    return Person(any_server, "alice", request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of small files, a large one, an empty one, an empty folder and a program."""
    top = tmp_path / "tree"
    for name, content in {**SMALL, "large": LARGE, "empty": b""}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (top / "nothing/inside").mkdir(parents=True)
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    return top


def content(top: Path) -> dict[str, bytes | None]:
    """All below a folder: files with their bytes, folders with None."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes() if path.is_file() else None
        for path in top.rglob("*")
        if path.name != ".neuro-uploads"
    }


def age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_a_tree_goes_up_and_comes_back_byte_for_byte(
    anna: Person, any_server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    up, down = Told(), Told()

    sent = anna.do(lambda s: s.upload_tree(tree, "storage:new/tree", progress=up))
    brought = anna.do(lambda s: s.download_tree("storage:new/tree", tmp_path / "b", progress=down))

    size = sum(map(len, SMALL.values())) + len(LARGE) + len("#!/bin/sh\n")
    assert content(any_server.home("alice") / "new/tree") == content(tree)
    assert content(tmp_path / "b") == content(tree)
    for outcome, told in ((sent, up), (brought, down)):
        assert (outcome.files, outcome.size, outcome.failed) == (303, size, ())
        assert (told.files, told.size, told.count, len(told.done)) == (303, size, size, 303)


def test_programs_stay_programs(
    alice: Person, server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    (tree / "large").chmod(0o755)

    alice.do(lambda s: s.upload_tree(tree, "storage:tree"))
    alice.do(lambda s: s.download_tree("storage:tree", tmp_path / "back"))

    for top in (server.home("alice") / "tree", tmp_path / "back"):
        assert os.access(top / "run.sh", os.X_OK)
        assert os.access(top / "large", os.X_OK)
        assert not (top / "empty").stat().st_mode & 0o111


def test_small_files_go_together(server: StorageServer, tree: Path, tmp_path: Path) -> None:
    alice = Person(server, "alice")

    alice.do(lambda s: s.upload_tree(tree, "storage:tree"))
    alice.do(lambda s: s.download_tree("storage:tree", tmp_path / "back"))

    # The folders, the small files; the large one by itself.
    assert server.requests.count("BULK") == 2
    assert server.requests.count("FETCH") == 1
    assert server.requests.count("UPLOAD") == server.requests.count("OPEN") == 1


def test_one_file_goes_up_and_comes_back(
    anna: Person, any_server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    assert anna.do(lambda s: s.upload_file(tree / "large", "storage:copy"))
    assert anna.do(lambda s: s.download_file("storage:copy", tmp_path / "back"))

    assert (any_server.home("alice") / "copy").read_bytes() == LARGE
    assert (tmp_path / "back").read_bytes() == LARGE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "root", "tree"]


def test_a_broken_name_in_a_tree_does_not_stop_the_others(
    alice: Person, server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    (server.home("alice") / "tree/empty").mkdir(parents=True)
    (tmp_path / "back/large").mkdir(parents=True)

    sent = alice.do(lambda s: s.upload_tree(tree, "storage:tree"))
    brought = alice.do(lambda s: s.download_tree("storage:tree", tmp_path / "back"))

    (failure,) = sent.failed
    assert failure.source == str(tree / "empty")
    assert failure.target == "storage://default/alice/tree/empty"
    assert isinstance(failure.error, StorageFault)
    assert (sent.files, brought.files) == (302, 301)
    assert [failed.target for failed in brought.failed] == [str(tmp_path / "back/large")]


def test_what_is_not_there_is_said(anna: Person, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        anna.do(lambda s: s.download_file("storage:none", tmp_path / "x"))
    with pytest.raises(NotFound):
        anna.do(lambda s: s.download_tree("storage:none", tmp_path / "x"))
    with pytest.raises(StorageFault, match="none"):
        anna.do(lambda s: s.upload_file(tmp_path / "none", "storage:x"))
    with pytest.raises(StorageFault, match="none"):
        anna.do(lambda s: s.upload_tree(tmp_path / "none", "storage:x"))
    assert not (tmp_path / "x").exists()


def test_update_copies_only_what_is_newer(
    anna: Person, any_server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    anna.do(lambda s: s.upload_tree(tree, "storage:tree"))
    anna.do(lambda s: s.download_tree("storage:tree", tmp_path / "back"))
    for path in tree.rglob("*"):
        age(path, 3600)
    for path in (any_server.home("alice") / "tree").rglob("*"):
        age(path, 1800)
    (tree / "empty").write_bytes(b"newer")
    newer = (tree / "run.sh").read_bytes().upper()
    (any_server.home("alice") / "tree/run.sh").write_bytes(newer)
    age(any_server.home("alice") / "tree/run.sh", -60)

    up = anna.do(lambda s: s.upload_tree(tree, "storage:tree", update=True))
    down = anna.do(lambda s: s.download_tree("storage:tree", tmp_path / "back", update=True))

    assert up.files == 1
    assert (any_server.home("alice") / "tree/empty").read_bytes() == b"newer"
    assert down.files == 2
    assert (tmp_path / "back/run.sh").read_bytes() == newer


def test_a_download_can_keep_what_is_newer_here_whatever_its_size(
    anna: Person, any_server: StorageServer, tmp_path: Path
) -> None:
    home = any_server.home("alice") / "notes"
    home.mkdir()
    (home / "a").write_bytes(b"old")
    age(home / "a", 3600)
    (tmp_path / "a").write_bytes(b"worked on")

    kept = anna.do(
        lambda s: s.download_tree("storage:notes", tmp_path, update=True, keep_newer=True)
    )
    assert (kept.files, kept.kept, (tmp_path / "a").read_bytes()) == (0, 1, b"worked on")

    anna.do(lambda s: s.download_tree("storage:notes", tmp_path, update=True))
    assert (tmp_path / "a").read_bytes() == b"old"


def test_filters_choose_what_goes_up_and_down(
    anna: Person, any_server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    keep = Filter([Rule("folder-*"), Rule("folder-3", exclude=False), Rule("/nothing/")])

    anna.do(lambda s: s.upload_tree(tree, "storage:up", keep=keep))
    anna.do(lambda s: s.upload_tree(tree, "storage:all"))
    anna.do(lambda s: s.download_tree("storage:all", tmp_path / "down", keep=keep))

    chosen = {name for name in content(any_server.home("alice") / "up") if "/" not in name}
    assert chosen == {"folder-3", "large", "empty", "run.sh"}
    assert content(tmp_path / "down") == content(any_server.home("alice") / "up")


def test_ignore_files_work_in_every_folder_and_from_above(
    alice: Person, server: StorageServer, tmp_path: Path
) -> None:
    top = tmp_path / "above/tree"
    (top / "sub").mkdir(parents=True)
    for name in ("keep.txt", "a.tmp", "sub/keep.txt", "sub/b.tmp", "sub/c.log", "d.log", "e.bak"):
        (top / name).touch()
    (tmp_path / "above/.neuroignore").write_text("tree/e.bak\n*.tmp\n")
    (top / ".neuroignore").write_text("# no copies\n!a.tmp\n.neuroignore\n")
    (top / "sub/.neuroignore").write_text("*.log\n")

    alice.do(lambda s: s.upload_tree(top, "storage:tree", ignore_files=(".neuroignore",)))

    sent = {
        path for path, data in content(server.home("alice") / "tree").items() if data is not None
    }
    assert sent == {"keep.txt", "a.tmp", "d.log", "sub/keep.txt"}


def test_links_are_followed_but_never_in_circles(
    alice: Person, server: StorageServer, tree: Path, tmp_path: Path
) -> None:
    (tree / "link").symlink_to("large")
    (tree / "around").symlink_to(tree)
    (tree / "nowhere").symlink_to("none")
    home = server.home("alice")
    (home / "remote").mkdir()
    (home / "remote/file").write_bytes(b"content")
    (home / "remote/link").symlink_to("file")
    (home / "remote/outside").symlink_to("/etc/passwd")
    up, down = Told(), Told()

    sent = alice.do(lambda s: s.upload_tree(tree, "storage:tree", progress=up))
    came = alice.do(lambda s: s.download_tree("storage:remote", tmp_path / "back", progress=down))

    assert (home / "tree/link").read_bytes() == LARGE
    failed = sorted(failure.source for failure in sent.failed)
    assert failed == [str(tree / "around"), str(tree / "nowhere")]
    assert content(tmp_path / "back") == {"file": b"content", "link": b"content"}
    assert [failure.source for failure in came.failed] == ["storage://default/alice/remote/outside"]
    assert up.left_out == down.left_out == []


def test_a_listing_that_would_lead_out_of_the_target_is_not_believed(tmp_path: Path) -> None:
    from neuro.client.storage.remote import check_name

    for name in ("", ".", "..", "a/b", "../x", "/etc", "a\0b"):
        with pytest.raises(InvalidInput):
            check_name(name)


class TestLostConnections:
    """A network that breaks off in the middle, again and again."""

    @pytest.fixture
    def frail(self, server: StorageServer) -> Iterator[Proxy]:
        with Proxy(server) as proxy:
            yield proxy

    @pytest.fixture(params=["blocking", "aiohttp"])
    def carl(
        self, request: pytest.FixtureRequest, server: StorageServer, frail: Proxy
    ) -> Iterator[Person]:
        port, server.port = server.port, frail.port
        yield Person(server, "alice", request.param)
        server.port = port

    def test_an_upload_goes_on_by_itself(
        self, carl: Person, server: StorageServer, frail: Proxy, tree: Path
    ) -> None:
        told = Told()
        frail.cut_uploads_after(2_000_000, times=2)

        carl.do(lambda s: s.upload_file(tree / "large", "storage:copy", progress=told))

        assert frail.cuts == 2
        assert (server.home("alice") / "copy").read_bytes() == LARGE
        assert told.count == len(LARGE)

    def test_a_download_goes_on_by_itself(
        self, carl: Person, server: StorageServer, frail: Proxy, tmp_path: Path
    ) -> None:
        (server.home("alice") / "large").write_bytes(LARGE)
        told = Told()
        frail.cut_downloads_after(1_300_000, times=2)

        carl.do(lambda s: s.download_file("storage:large", tmp_path / "copy", progress=told))

        assert frail.cuts == 2
        assert (tmp_path / "copy").read_bytes() == LARGE
        assert told.count == len(LARGE)
        assert server.requests.count("OPEN") >= 2

    def test_a_tree_goes_on_by_itself(
        self, carl: Person, server: StorageServer, frail: Proxy, tree: Path, tmp_path: Path
    ) -> None:
        frail.cut_uploads_after(400_000, times=2)
        sent = carl.do(lambda s: s.upload_tree(tree, "storage:tree"))
        frail.cut_downloads_after(400_000, times=2)
        brought = carl.do(lambda s: s.download_tree("storage:tree", tmp_path / "back"))

        assert frail.cuts == 4
        assert (sent.failed, brought.failed) == ((), ())
        assert content(tmp_path / "back") == content(tree)

    def test_what_broke_off_for_good_is_continued_by_the_next_command(
        self, server: StorageServer, frail: Proxy, tree: Path
    ) -> None:
        from neuro.client.transport import ServerUnreachable

        frail.cut_uploads_after(2_500_000, times=1000)
        through = Person(server, "alice")
        port, server.port = server.port, frail.port
        with pytest.raises(ServerUnreachable), frail.no_more_after_first_cut():
            through.do(lambda s: s.upload_file(tree / "large", "storage:copy"))
        server.port = port
        assert not (server.home("alice") / "copy").exists()
        server.requests.clear()
        told = Told()

        Person(server, "alice").do(
            lambda s: s.upload_file(tree / "large", "storage:copy", resume=True, progress=told)
        )

        assert "UPLOADSTATUS" in server.requests
        assert (server.home("alice") / "copy").read_bytes() == LARGE
        assert told.count == len(LARGE)


def test_a_download_that_another_client_began_is_finished(
    alice: Person, server: StorageServer, tmp_path: Path
) -> None:
    from neuro.client.storage import local

    (server.home("alice") / "large").write_bytes(LARGE)
    age(server.home("alice") / "large", 3600)
    status = alice.do(lambda s: s.stat("storage:large"))
    key = f"storage://default/alice/large\0{status.length}\0{status.modificationTime}"
    draft = local.Draft(str(tmp_path / "copy"), key)
    draft.write(LARGE[:1_000_000])
    draft.keep()

    alice.do(lambda s: s.download_file("storage:large", tmp_path / "copy", resume=True))

    assert (tmp_path / "copy").read_bytes() == LARGE
    assert not Path(draft.path).exists()


def test_continue_finishes_what_a_reference_client_left_half_done(
    alice: Person, server: StorageServer, tree: Path
) -> None:
    age(tree / "large", 3600)
    half = server.home("alice") / "copy"
    half.write_bytes(LARGE[:1_500_000])

    alice.do(lambda s: s.upload_file(tree / "large", "storage:copy", resume=True))
    again = alice.do(lambda s: s.upload_file(tree / "large", "storage:copy", resume=True))

    assert half.read_bytes() == LARGE
    assert "UPLOAD" not in server.requests
    assert again is False


def test_small_operations_do_what_they_say(alice: Person, server: StorageServer) -> None:
    home = server.home("alice")

    alice.do(lambda s: s.mkdir("storage:a/b", parents=True))
    alice.do(lambda s: s.create("storage:a/b/file", [b"01234", b"56789"]))
    alice.do(lambda s: s.write("storage:a/b/file", b"xy", 3))

    assert alice.do(lambda s: s.read_bytes("storage:a/b/file")) == b"012xy56789"
    assert alice.all(lambda s: s.read("storage:a/b/file", offset=2, size=3)) == [b"2xy"]
    assert alice.do(lambda s: s.exists("storage:a/b"))
    assert not alice.do(lambda s: s.exists("storage:a/c"))
    assert not alice.do(lambda s: s.exists("storage:a/b/file/c"))
    assert [p for p, _ in alice.all(lambda s: s.walk("storage:"))] == ["a", "a/b", "a/b/file"]
    assert alice.do(lambda s: s.disk_usage()).total > 0
    alice.do(lambda s: s.rename("storage:a/b", "storage:c"))
    assert [r.path for r in alice.all(lambda s: s.remove("storage:c", recursive=True))] == [
        "/alice/c/file",
        "/alice/c",
    ]
    assert content(home) == {"a": None}


def test_mkdir_says_what_is_missing_or_in_the_way(alice: Person, server: StorageServer) -> None:
    (server.home("alice") / "file").touch()

    with pytest.raises(NotFound, match="storage://default/alice/a"):
        alice.do(lambda s: s.mkdir("storage:a/b"))
    with pytest.raises(StorageFault, match="already"):
        alice.do(lambda s: s.mkdir("storage:file"))
    with pytest.raises(StorageFault, match="not a folder"):
        alice.do(lambda s: s.mkdir("storage:file/b"))
    with pytest.raises(StorageFault):
        alice.do(lambda s: s.mkdir("storage:file", exist_ok=True))


@pytest.mark.parametrize(
    "uri",
    ["data", "file:data", "storage:~bob", "storage:../bob", "storage:a?b", "storage:a#b", "job:x"],
)
def test_a_uri_that_makes_no_sense_is_refused_before_any_request(
    alice: Person, server: StorageServer, uri: str
) -> None:
    with pytest.raises(InvalidInput):
        alice.do(lambda s: s.stat(uri))
    assert server.requests == []


def test_another_cluster_is_told_apart(alice: Person) -> None:
    with pytest.raises(InvalidInput, match="'other'"):
        alice.do(lambda s: s.stat("storage://other/alice/x"))
