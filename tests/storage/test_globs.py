"""Wildcards in storage URIs."""

from __future__ import annotations

import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import full_text
from tests.storage.people import Person
from tests.storage.server import StorageServer

FILES = [
    "a.txt",
    "b.txt",
    ".hidden.txt",
    "data/c.txt",
    "data/d.csv",
    "data/deep/e.txt",
    "data/.deep/f.txt",
    "data[1]/g.txt",
    "what?/h.txt",
]


@pytest.fixture
def files(server: StorageServer) -> None:
    for name in FILES:
        path = server.home("alice") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        (".*.txt", [".hidden.txt"]),
        ("data/*.txt", ["data/c.txt"]),
        ("*/*.txt", ["data/c.txt", "data[1]/g.txt", "what?/h.txt"]),
        ("data/**/*.txt", ["data/c.txt", "data/deep/e.txt"]),
        ("**/e.txt", ["data/deep/e.txt"]),
        ("data/**", ["data", "data/c.txt", "data/d.csv", "data/deep", "data/deep/e.txt"]),
        ("data%5B1%5D/*", ["data[1]/g.txt"]),
        ("data[[]1]/*", ["data[1]/g.txt"]),
        ("wha*%3F/*", ["what?/h.txt"]),
        ("a.txt", ["a.txt"]),
        ("none", []),
        ("none/*", []),
        ("a.txt/*", []),
        ("*.none", []),
    ],
)
def test_a_pattern_finds_what_it_matches(
    server: StorageServer, files: None, pattern: str, found: list[str]
) -> None:
    alice = Person(server, "alice")

    for start in ("storage:", "storage:/alice/", "storage://default/alice/"):
        uris = alice.all(lambda storage, start=start: storage.glob(start + pattern))

        assert ["/".join(uri.segments[1:]) for uri in uris] == found


def test_what_is_found_can_be_read_back(server: StorageServer, files: None) -> None:
    alice = Person(server, "alice")

    for uri in alice.all(lambda storage: storage.glob("storage:**/*.txt")):
        text = full_text(uri)
        assert alice.do(lambda storage, text=text: storage.exists(text))


@pytest.mark.parametrize("pattern", ["*.txt", "storage://*/alice", "storage:../*", "storage:#*"])
def test_a_pattern_that_makes_no_sense_is_refused(server: StorageServer, pattern: str) -> None:
    with pytest.raises(InvalidInput):
        Person(server, "alice").all(lambda storage: storage.glob(pattern))
