"""Uploads of the platform's own: whole or not at all, checked, continued where they broke off."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro.domain.frames import END, PIECE_BYTES, Flag, Kind, encode_frame
from neuro.server.storage.staging import KEEP_SECONDS
from tests.storage.people import Raw
from tests.storage.server import StorageServer

ID = "an-identifier"
CONTENT = os.urandom(9 * PIECE_BYTES + 17)
PIECES = [CONTENT[start : start + PIECE_BYTES] for start in range(0, len(CONTENT), PIECE_BYTES)]


def frames(pieces: list[bytes]) -> bytes:
    return b"".join(encode_frame(Kind.PART, "", piece) for piece in pieces)


def staged(server: StorageServer) -> list[Path]:
    room = server.home("alice") / ".neuro-uploads"
    return sorted(room.iterdir()) if room.exists() else []


def cut_off(
    server: StorageServer,
    path: str,
    body: bytes,
    announced: int,
    until: Callable[[], bool] = lambda: True,
) -> None:
    """Send a part of a request and vanish, as a killed client does; returns when it is noticed.

    It does not vanish before ``until`` holds.
    """
    seen = len(server.requests)
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = (
        f"{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
        f"Content-Length: {announced}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    wait_for(until)
    connection.close()
    wait_for(lambda: len(server.requests) > seen and not server.in_flight)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_upload_appears_when_it_is_whole(server: StorageServer, raw: Raw) -> None:
    answer = raw(
        "PUT", "/alice/file", "UPLOAD", body=frames(PIECES) + END, id=ID, size=len(CONTENT)
    )

    assert answer.status == 201
    assert (server.home("alice") / "file").read_bytes() == CONTENT
    assert staged(server) == []


def test_an_empty_file_is_an_upload_too(server: StorageServer, raw: Raw) -> None:
    assert raw("PUT", "/alice/file", "UPLOAD", body=END, id=ID, size=0).status == 201
    assert (server.home("alice") / "file").read_bytes() == b""


def test_a_client_that_is_killed_leaves_nothing_to_be_seen(server: StorageServer, raw: Raw) -> None:
    (server.home("alice") / "file").write_bytes(b"the version before")
    path = f"PUT /api/v1/storage/alice/file?op=UPLOAD&id={ID}&size={len(CONTENT)}"

    cut_off(server, path, frames(PIECES[:2]) + b"half a frame", 10 * len(CONTENT))

    assert raw.names("/alice") == {"file"}
    assert (server.home("alice") / "file").read_bytes() == b"the version before"


def test_it_goes_on_where_it_broke_off(server: StorageServer, raw: Raw) -> None:
    path = f"PUT /api/v1/storage/alice/file?op=UPLOAD&id={ID}&size={len(CONTENT)}"

    def arrived_bytes() -> int:
        return raw("GET", "/alice/file", "UPLOADSTATUS", id=ID).json["offset"]

    some = frames(PIECES[:7]) + b"half a frame"
    cut_off(server, path, some, 10 * len(CONTENT), lambda: arrived_bytes() >= PIECE_BYTES)

    arrived = arrived_bytes()
    rest = frames(PIECES[arrived // PIECE_BYTES :]) + END
    answer = raw(
        "PUT", "/alice/file", "UPLOAD", body=rest, id=ID, size=len(CONTENT), offset=arrived
    )

    assert arrived in range(PIECE_BYTES, 8 * PIECE_BYTES, PIECE_BYTES)
    assert answer.status == 201
    assert (server.home("alice") / "file").read_bytes() == CONTENT


def test_another_users_and_another_files_upload_of_that_name_is_not_continued(
    server: StorageServer, raw: Raw
) -> None:
    path = f"PUT /api/v1/storage/alice/file?op=UPLOAD&id={ID}&size={len(CONTENT)}"

    def has_arrived() -> bool:
        return raw("GET", "/alice/file", "UPLOADSTATUS", id=ID).json["offset"] > 0

    cut_off(server, path, frames(PIECES[:7]), 10 * len(CONTENT), has_arrived)

    assert Raw(server, "admin")("GET", "/alice/file", "UPLOADSTATUS", id=ID).json["offset"] == 0
    assert raw("GET", "/alice/other", "UPLOADSTATUS", id=ID).json["offset"] == 0


def test_a_damaged_piece_is_noticed_and_not_written(server: StorageServer, raw: Raw) -> None:
    body = bytearray(frames(PIECES) + END)
    body[PIECE_BYTES + 1000] ^= 1

    answer = raw("PUT", "/alice/file", "UPLOAD", body=bytes(body), id=ID, size=len(CONTENT))

    assert answer.status == 400
    assert "damaged" in answer.json["error"]
    assert raw.names("/alice") == set()
    assert raw("GET", "/alice/file", "UPLOADSTATUS", id=ID).json["offset"] == PIECE_BYTES


@pytest.mark.parametrize(
    ("body", "params", "words"),
    [
        (frames(PIECES[:1]) + END, {"size": 2 * PIECE_BYTES}, "continue"),
        (frames(PIECES), {"size": len(CONTENT)}, "broke off"),
        (frames(PIECES) + END, {"size": 10}, "announced 10"),
        (END, {"size": 10, "offset": 11}, "at most the size"),
        (END, {"size": 10, "offset": 5}, "ask how much"),
        (END, {"size": -1}, "at most the size"),
        (b"garbage of all kinds", {"size": 10}, "frame"),
        (encode_frame(Kind.FILE, "x", b"y") + END, {"size": 1}, "PART"),
    ],
)
def test_an_upload_that_is_wrong_is_refused_with_the_reason(
    raw: Raw, body: bytes, params: dict[str, int], words: str
) -> None:
    answer = raw("PUT", "/alice/file", "UPLOAD", body=body, id=ID, **params)

    assert answer.status == 400
    assert words in answer.json["error"]
    assert raw.names("/alice") == set()


def test_an_upload_id_that_could_be_a_path_is_refused(raw: Raw) -> None:
    answer = raw("PUT", "/alice/file", "UPLOAD", body=END, id="../../x/y/z", size=0)

    assert answer.status == 400


def test_an_upload_needs_its_folder(raw: Raw) -> None:
    answer = raw("PUT", "/alice/none/file", "UPLOAD", body=END, id=ID, size=0)

    assert answer.status == 404
    assert "'/alice/none'" in answer.json["error"]


def test_over_a_folder_it_fails_and_leaves_nothing_behind(server: StorageServer, raw: Raw) -> None:
    (server.home("alice") / "folder").mkdir()

    answer = raw("PUT", "/alice/folder", "UPLOAD", body=END, id=ID, size=0)

    assert (answer.status, answer.json["errno"]) == (400, "EISDIR")
    assert staged(server) == []


def test_what_was_left_behind_for_days_goes_with_the_next_servers_first_upload(
    tmp_path: Path,
) -> None:
    room = tmp_path / "root/alice/.neuro-uploads"
    room.mkdir(parents=True)
    old, young = room / "old", room / "young"
    old.touch()
    young.touch()
    os.utime(old, (0, time.time() - KEEP_SECONDS - 60))

    with StorageServer(tmp_path / "root") as server:
        Raw(server)("PUT", "/alice/file", "UPLOAD", body=END, id=ID, size=0)

    assert [path.name for path in room.iterdir()] == ["young"]


class TestBulk:
    """Many files in one request."""

    def test_files_and_folders_are_made_with_all_above_them(
        self, server: StorageServer, raw: Raw
    ) -> None:
        body = (
            encode_frame(Kind.FOLDER, "empty/inner")
            + encode_frame(Kind.FILE, "a/b/c", b"abc")
            + encode_frame(Kind.FILE, "run.sh", b"#!", Flag.EXECUTABLE)
            + encode_frame(Kind.FILE, "long", b"12", Flag.MORE)
            + encode_frame(Kind.PART, "long", b"34", Flag.MORE)
            + encode_frame(Kind.PART, "long", b"5")
            + END
        )

        answer = raw("POST", "/alice/new/top", "BULK", body=body)

        top = server.home("alice") / "new/top"
        assert answer.lines == [{"files": 3, "folders": 1, "bytes": 10, "failed": 0}]
        assert (top / "empty/inner").is_dir()
        assert (top / "a/b/c").read_bytes() == b"abc"
        assert (top / "long").read_bytes() == b"12345"
        assert os.access(top / "run.sh", os.X_OK)
        assert not (top / "a/b/c").stat().st_mode & 0o111

    def test_what_fails_is_told_and_the_rest_goes_on(self, server: StorageServer, raw: Raw) -> None:
        home = server.home("alice")
        (home / "folder").mkdir()
        (home / "plain").touch()
        paths = ["folder", "plain/x", "../bob", "x" * 300, ".neuro-uploads/x", "a\0b", "", "good"]
        body = b"".join(encode_frame(Kind.FILE, path, b"x") for path in paths)

        lines = raw("POST", "/alice", "BULK", body=body + END).lines

        assert [line["path"] for line in lines[:-1]] == paths[:-1]
        assert [line.get("errno") for line in lines[:4]] == [
            "EISDIR",
            "ENOTDIR",
            None,
            "ENAMETOOLONG",
        ]
        assert lines[-1] == {"files": 1, "folders": 0, "bytes": 1, "failed": 7}
        assert (home / "good").read_bytes() == b"x"
        assert staged(server) == []

    def test_a_client_that_is_killed_leaves_only_whole_files(
        self, server: StorageServer, raw: Raw
    ) -> None:
        whole = encode_frame(Kind.FILE, "whole", b"all of it")
        begun = encode_frame(Kind.FILE, "begun", b"a part", Flag.MORE)

        cut_off(server, "POST /api/v1/storage/alice?op=BULK", whole + begun, 10_000)

        assert raw.names("/alice") <= {"whole"}
        assert staged(server) == []

    def test_a_file_that_the_client_could_not_read_to_its_end_is_not_made(
        self, server: StorageServer, raw: Raw
    ) -> None:
        body = encode_frame(Kind.FILE, "begun", b"a part", Flag.MORE)
        body += encode_frame(Kind.ABORT, "begun") + encode_frame(Kind.FILE, "next", b"x") + END

        answer = raw("POST", "/alice", "BULK", body=body)

        assert answer.lines[-1]["files"] == 1
        assert raw.names("/alice") == {"next"}

    def test_a_stream_without_its_end_is_refused(self, raw: Raw) -> None:
        answer = raw("POST", "/alice", "BULK", body=encode_frame(Kind.FILE, "a", b"x"))

        assert answer.status == 400
        assert "broke off" in answer.json["error"]

    def test_fetch_gives_the_files_and_tells_what_it_cannot(
        self, server: StorageServer, raw: Raw
    ) -> None:
        from neuro.domain.frames import FrameReader

        (server.home("alice") / "a").write_bytes(b"abc")
        (server.home("alice") / "big").write_bytes(CONTENT)

        answer = raw("POST", "/alice", "FETCH", body=b'{"paths": ["a", "none", "big"]}')

        reader = FrameReader()
        got = reader.feed(answer.body)
        assert reader.ended
        assert [(f.kind, f.path) for f in got[:2]] == [(Kind.FILE, "a"), (Kind.FAULT, "none")]
        assert b'"ENOENT"' in got[1].data
        assert b"".join(frame.data for frame in got[2:]) == CONTENT

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"paths": 1}', b"\xff"])
    def test_fetch_refuses_what_is_no_list_of_files(self, raw: Raw, body: bytes) -> None:
        assert raw("POST", "/alice", "FETCH", body=body).status == 400

    def test_fetch_refuses_a_list_without_end(self, raw: Raw) -> None:
        assert raw("POST", "/alice", "FETCH", body=b" " * (9 << 20)).status == 413


def test_create_and_write_of_the_reference_are_left_as_they_arrived(
    server: StorageServer, raw: Raw
) -> None:
    (server.home("alice") / "file").write_bytes(b"the version before")

    cut_off(server, "PUT /api/v1/storage/alice/file?op=CREATE", b"abc", 100)

    assert (server.home("alice") / "file").read_bytes() in (b"", b"abc")
