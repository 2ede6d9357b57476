"""docs/reference/wire-protocol.md#storage: statuses, headers and bodies of every operation."""

from __future__ import annotations

import os

import pytest

from tests.storage.people import Raw
from tests.storage.server import StorageServer

NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture
def home(server: StorageServer):
    folder = server.home("alice")
    (folder / "data").mkdir()
    (folder / "data" / "a.txt").write_bytes(b"0123456789")
    return folder


def test_a_listing_has_base_names_as_json_and_as_lines(raw: Raw, home) -> None:
    plain = raw("GET", "/alice/data", "LISTSTATUS")
    lines = raw("GET", "/alice/data/", "LISTSTATUS", headers=NDJSON)

    expected = {
        "path": "a.txt",
        "length": 10,
        "type": "FILE",
        "modificationTime": int((home / "data/a.txt").stat().st_mtime),
        "permission": "manage",
    }
    assert plain.json == {"FileStatuses": {"FileStatus": [expected]}}
    assert lines.headers["Content-Type"].startswith("application/x-ndjson")
    assert lines.lines == [{"FileStatus": expected}]


def test_a_listing_of_ten_thousand_names_is_whole(raw: Raw, home) -> None:
    for number in range(10_000):
        (home / "data" / f"{number}").touch()

    lines = raw("GET", "/alice/data", "LISTSTATUS", headers=NDJSON).lines
    plain = raw("GET", "/alice/data", "LISTSTATUS").json["FileStatuses"]["FileStatus"]

    assert len({line["FileStatus"]["path"] for line in lines}) == 10_001
    assert len({entry["path"] for entry in plain}) == 10_001


def test_listing_a_file_says_enotdir(raw: Raw, home) -> None:
    answer = raw("GET", "/alice/data/a.txt", "LISTSTATUS", headers=NDJSON)

    assert (answer.status, answer.json["errno"]) == (400, "ENOTDIR")


def test_a_status_has_the_full_path(raw: Raw, home) -> None:
    status = raw("GET", "/alice/data/a.txt", "GETFILESTATUS").json["FileStatus"]
    folder = raw("GET", "/alice/data", "GETFILESTATUS").json["FileStatus"]

    assert (status["path"], status["length"], status["type"]) == ("/alice/data/a.txt", 10, "FILE")
    assert (folder["path"], folder["length"], folder["type"]) == ("/alice/data", 0, "DIRECTORY")


@pytest.mark.parametrize(
    ("method", "op"),
    [("GET", "LISTSTATUS"), ("GET", "GETFILESTATUS"), ("GET", "OPEN"), ("DELETE", "DELETE")],
)
def test_what_is_not_there_is_404(raw: Raw, method: str, op: str) -> None:
    answer = raw(method, "/alice/none", op)

    assert answer.status == 404
    assert "/alice/none" in answer.json["error"]


def test_ones_own_home_is_there_from_the_start(raw: Raw) -> None:
    assert raw("GET", "/alice", "LISTSTATUS").json == {"FileStatuses": {"FileStatus": []}}


def test_disk_usage_is_told_in_bytes(raw: Raw, home) -> None:
    usage = raw("GET", "/alice", "GETDISKUSAGE").json
    disk = os.statvfs(home)

    assert usage["total"] == disk.f_blocks * disk.f_frsize
    assert 0 < usage["free"] <= usage["total"]
    assert 0 < usage["used"] <= usage["total"]


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=3-", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_file_is_read_in_whole_or_by_range(
    raw: Raw, home, header: str | None, status: int, body: bytes, content_range: str | None
) -> None:
    answer = raw("GET", "/alice/data/a.txt", "OPEN", headers={"Range": header} if header else {})

    assert (answer.status, answer.body) == (status, body)
    assert answer.headers.get("Content-Range") == content_range
    assert answer.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-4", "bytes=-0"])
def test_a_range_that_the_file_does_not_have_is_416(raw: Raw, home, header: str) -> None:
    answer = raw("GET", "/alice/data/a.txt", "OPEN", headers={"Range": header})

    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */10"


def test_a_range_of_a_file_that_has_changed_gives_the_whole_new_file(raw: Raw, home) -> None:
    version = raw("GET", "/alice/data/a.txt", "OPEN").headers["ETag"]
    (home / "data/a.txt").write_bytes(b"another content")

    answer = raw(
        "GET", "/alice/data/a.txt", "OPEN", headers={"Range": "bytes=3-", "If-Range": version}
    )

    assert (answer.status, answer.body) == (200, b"another content")


def test_opening_a_folder_says_eisdir(raw: Raw, home) -> None:
    answer = raw("GET", "/alice/data", "OPEN")

    assert (answer.status, answer.json["errno"]) == (400, "EISDIR")


def test_a_large_file_is_read_byte_for_byte(raw: Raw, home) -> None:
    content = os.urandom(5_000_001)
    (home / "big").write_bytes(content)

    assert raw("GET", "/alice/big", "OPEN").body == content


def test_create_makes_and_empties_and_write_goes_on_at_an_offset(raw: Raw, home) -> None:
    (home / "new").write_bytes(b"something longer than what follows")

    created = raw("PUT", "/alice/new", "CREATE", body=b"abc")
    written = raw(
        "PATCH", "/alice/new", "WRITE", body=b"def", headers={"Content-Range": "bytes 3-5/*"}
    )

    assert (created.status, written.status) == (201, 200)
    assert (home / "new").read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    "header", [None, "3-5", "bytes 5-3/*", "bytes a-b/*", "bytes 0-99/*", "bytes 0-0/*"]
)
def test_write_refuses_a_content_range_that_does_not_fit_the_body(
    raw: Raw, home, header: str | None
) -> None:
    headers = {"Content-Range": header} if header else {}

    answer = raw("PATCH", "/alice/data/a.txt", "WRITE", body=b"abc", headers=headers)

    assert answer.status == 400
    assert "Content-Range" in answer.json["error"]


def test_write_needs_the_file_to_be_there(raw: Raw, home) -> None:
    headers = {"Content-Range": "bytes 0-2/*"}

    assert raw("PATCH", "/alice/no", "WRITE", body=b"abc", headers=headers).status == 404
    assert raw("PUT", "/alice/no/file", "CREATE", body=b"abc").status == 404
    assert raw("PUT", "/alice/data", "CREATE", body=b"abc").json["errno"] == "EISDIR"


def test_mkdirs_makes_all_above_and_leaves_what_is_there(raw: Raw, home) -> None:
    assert raw("PUT", "/alice/x/y/z", "MKDIRS").status == 201
    assert raw("PUT", "/alice/x/y/z", "MKDIRS").status == 201
    assert (home / "x/y/z").is_dir()


def test_mkdirs_over_a_file_says_eexist_and_through_one_enotdir(raw: Raw, home) -> None:
    over = raw("PUT", "/alice/data/a.txt", "MKDIRS")
    through = raw("PUT", "/alice/data/a.txt/more", "MKDIRS")

    assert (over.status, over.json["errno"]) == (400, "EEXIST")
    assert (through.status, through.json["errno"]) == (400, "ENOTDIR")


@pytest.mark.parametrize(
    ("source", "target", "status", "errno"),
    [
        ("data/a.txt", "/alice/b.txt", 204, None),
        ("data/a.txt", "/alice/data/over", 204, None),
        ("data", "/alice/empty", 204, None),
        ("data", "/alice/full", 400, "ENOTEMPTY"),
        ("data", "/alice/plain", 400, "ENOTDIR"),
        ("data/a.txt", "/alice/empty", 400, "EISDIR"),
        ("data", "/alice/data/below", 400, "EINVAL"),
        ("none", "/alice/b.txt", 404, None),
        ("data/a.txt", "/alice/none/b.txt", 404, None),
        ("data/a.txt", "b.txt", 400, None),
        ("data/a.txt", "", 400, None),
        ("", "/alice/elsewhere", 400, "EPERM"),
    ],
)
def test_rename_is_posix_rename(
    raw: Raw, home, source: str, target: str, status: int, errno: str | None
) -> None:
    (home / "empty").mkdir()
    (home / "full/inside").mkdir(parents=True)
    (home / "data/over").touch()
    (home / "plain").touch()

    answer = raw("POST", f"/alice/{source}", "RENAME", destination=target)

    assert answer.status == status
    if status == 400:
        assert answer.json.get("errno") == errno
    if status == 204:
        moved = home.parent / target.lstrip("/")
        assert moved.exists()
        assert not (home / source).exists()


def test_delete_tells_each_thing_that_is_gone_from_the_deepest_up(raw: Raw, home) -> None:
    (home / "data/sub").mkdir()
    (home / "data/sub/b").touch()

    answer = raw("DELETE", "/alice/data", "DELETE", recursive="true", headers=NDJSON)

    assert answer.status == 200
    assert answer.lines == [
        {"path": "/alice/data/a.txt", "is_dir": False},
        {"path": "/alice/data/sub/b", "is_dir": False},
        {"path": "/alice/data/sub", "is_dir": True},
        {"path": "/alice/data", "is_dir": True},
    ]
    assert not (home / "data").exists()


def test_delete_without_ndjson_is_an_empty_204(raw: Raw, home) -> None:
    answer = raw("DELETE", "/alice/data/a.txt", "DELETE")

    assert (answer.status, answer.body) == (204, b"")


def test_delete_of_a_folder_must_say_recursive(raw: Raw, home) -> None:
    answer = raw("DELETE", "/alice/data", "DELETE", recursive="false", headers=NDJSON)

    assert (answer.status, answer.json["errno"]) == (400, "EISDIR")
    assert (home / "data/a.txt").exists()


@pytest.mark.parametrize("path", ["/alice", "/alice/", "/"])
def test_the_root_of_an_owner_stays(server: StorageServer, home, path: str) -> None:
    answer = Raw(server, "admin")("DELETE", path, "DELETE", recursive="true")

    assert (answer.status, answer.json["errno"]) == (400, "EPERM")
    assert (home / "data/a.txt").exists()


def test_a_tree_deeper_than_any_number_of_open_files_is_removed(raw: Raw, home) -> None:
    deep = home / "deep"
    deep.mkdir()
    for _ in range(1200):
        deep /= "d"
        deep.mkdir()

    answer = raw("DELETE", "/alice/deep", "DELETE", recursive="true", headers=NDJSON)

    assert len(answer.lines) == 1201
    assert not (home / "deep").exists()


@pytest.mark.parametrize(("method", "op"), [("GET", "NONE"), ("PUT", "OPEN"), ("POST", None)])
def test_an_operation_that_there_is_not_is_named_in_the_refusal(
    raw: Raw, method: str, op: str | None
) -> None:
    answer = raw(method, "/alice", op)

    assert answer.status == 400
    assert "knows" in answer.json["error"]


def test_a_path_beside_the_storage_is_404(raw: Raw) -> None:
    assert raw("GET", "x/alice", "LISTSTATUS").status == 404
