"""Paths: what is refused, with which words, and names in any script."""

from __future__ import annotations

import os

import pytest

from tests.storage.people import Person, Raw
from tests.storage.server import StorageServer

EVERY_OP = [
    ("GET", "LISTSTATUS"),
    ("GET", "GETFILESTATUS"),
    ("GET", "GETDISKUSAGE"),
    ("GET", "OPEN"),
    ("PUT", "CREATE"),
    ("PUT", "MKDIRS"),
    ("POST", "RENAME"),
    ("POST", "BULK"),
    ("POST", "FETCH"),
    ("DELETE", "DELETE"),
]
NAMES = [
    "новая модель",
    "数据",
    "🐍",
    "e\u0301",
    "a b",
    "100%",
    "a+b&c=d",
    "x?y#z",
    "'\"",
    "\\",
    "\n",
]


@pytest.mark.parametrize(("method", "op"), EVERY_OP)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/alice/../bob", ".."),
        ("/alice/%2e%2e/bob", ".."),
        ("/alice/..%2fbob", ".."),
        ("/alice/a%00b", "NUL"),
        ("/alice/" + "x" * 4000, "4007 bytes"),
        ("/alice/" + "x/" * 1700, "3407 bytes"),
        ("/alice/" + "x" * 256, "255 bytes"),
        ("/alice/%ff", "UTF-8"),
        ("/.hidden/file", "owner"),
        ("/alice/.neuro-uploads/x", ".neuro-uploads"),
    ],
)
def test_a_path_that_makes_no_sense_is_refused_with_the_reason(
    raw: Raw, method: str, op: str, path: str, words: str
) -> None:
    answer = raw(method, path, op, destination="/alice/x")

    assert answer.status == 400
    assert words in answer.json["error"]


def test_a_long_path_in_another_script_is_as_good_as_any(server: StorageServer, raw: Raw) -> None:
    folder = "/alice" + "/папка" * 270

    assert raw("PUT", folder, "MKDIRS").status == 201
    assert raw("POST", folder, "RENAME", destination=folder + "2").status == 204
    assert raw("GET", folder + "2", "GETFILESTATUS").status == 200
    assert "8007 bytes" in raw("GET", "/alice/" + "ж" * 4000, "GETFILESTATUS").json["error"]


@pytest.mark.parametrize("destination", ["/alice/../bob/x", "/alice/" + "y" * 300, "/alice/a\0b"])
def test_a_destination_is_checked_like_any_path(
    server: StorageServer, raw: Raw, destination: str
) -> None:
    (server.home("alice") / "file").touch()

    assert raw("POST", "/alice/file", "RENAME", destination=destination).status == 400
    assert (server.home("alice") / "file").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_script_goes_all_the_way_and_back(
    alice: Person, server: StorageServer, tmp_path, name: str
) -> None:
    source = tmp_path / "source"
    (source / name).mkdir(parents=True)
    (source / name / name).write_bytes(b"content")
    here = alice.do(lambda storage: storage.upload_tree(source, "storage:tree"))
    uri = alice.do(_uri).child("tree", name, name)

    alice.do(lambda storage: storage.rename(uri, uri.child().child()))
    back = alice.do(lambda storage: storage.download_tree("storage:tree", tmp_path / "back"))

    assert (here.files, here.failed, back.files, back.failed) == (1, (), 1, ())
    assert (server.home("alice") / "tree" / name / name).read_bytes() == b"content"
    assert (tmp_path / "back" / name / name).read_bytes() == b"content"
    assert [entry.path for entry in alice.all(lambda storage: storage.list("storage:tree"))] == [
        name
    ]
    alice.all(lambda storage: storage.remove(uri))
    assert not (server.home("alice") / "tree" / name / name).exists()


async def _uri(storage):
    return storage.uri("storage:")


class TestNamesThatAreNoUTF8:
    """Jobs can make them; the wire has only UTF-8."""

    @pytest.fixture
    def odd(self, server: StorageServer) -> bytes:
        folder = os.fsencode(server.home("alice")) + b"/caf\xe9"
        os.mkdir(folder)
        with open(folder + b"/\xff\xfe", "wb") as file:
            file.write(b"content")
        return folder

    def test_they_are_listed_with_a_replacement_character(self, raw: Raw, odd: bytes) -> None:
        assert raw.names("/alice") == {"caf\ufffd"}
        assert raw.names("/alice/caf\ufffd") == {"\ufffd\ufffd"}

    def test_that_name_reads_moves_and_removes_them(self, raw: Raw, odd: bytes) -> None:
        path = "/alice/caf\ufffd/\ufffd\ufffd"

        assert raw("GET", path, "OPEN").body == b"content"
        assert raw("POST", path, "RENAME", destination="/alice/good").status == 204
        assert raw("DELETE", "/alice/caf\ufffd", "DELETE", recursive="true").status == 204
        assert raw.names("/alice") == {"good"}

    def test_one_of_several_that_look_alike_is_never_taken_for_another(
        self, raw: Raw, odd: bytes
    ) -> None:
        with open(odd + b"/\xfe\xff", "wb") as file:
            file.write(b"other")

        answer = raw("DELETE", "/alice/caf\ufffd/\ufffd\ufffd", "DELETE")

        assert (answer.status, answer.json["errno"]) == (400, "EILSEQ")

    def test_a_recursive_removal_and_a_download_go_on(
        self, alice: Person, server: StorageServer, odd: bytes, tmp_path
    ) -> None:
        outcome = alice.do(lambda s: s.download_tree("storage:", tmp_path / "back"))

        assert (outcome.files, outcome.failed) == (1, ())
        alice.all(lambda s: s.remove("storage:caf\ufffd", recursive=True))
        assert not os.path.exists(odd)

    def test_local_ones_are_left_out_of_an_upload_and_told(self, alice: Person, tmp_path) -> None:
        os.mkdir(tmp_path / "source")
        (tmp_path / "source/good").touch()
        with open(os.fsencode(tmp_path) + b"/source/bad\xff", "wb"):
            pass

        outcome = alice.do(lambda s: s.upload_tree(tmp_path / "source", "storage:x"))

        told = [str(failure.error) for failure in outcome.failed]
        assert (outcome.files, told) == (1, ["the name is not in UTF-8."])
