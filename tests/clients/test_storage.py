"""Files: up, down, listed, moved, removed (docs/reference/wire-protocol.md#storage)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.reference_client import ReferenceClient

NAMES = ("plain.txt", "файл один.txt", "sub/日本.txt", "sub/a%20b+c#d.txt", "sub/deep/.hidden")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with difficult names, and an empty folder."""
    folder = tmp_path_factory.mktemp("tree")
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (number * 1000))
    (folder / "пусто").mkdir()
    return folder


@pytest.fixture(scope="module")
def uploaded(client: ReferenceClient, tree: Path) -> str:
    """The tree in the storage; its URI."""
    uri = f"storage:tree-{client.version}"
    client.run("cp", "-r", str(tree), uri)
    return uri


@pytest.fixture
def place(client: ReferenceClient, request: pytest.FixtureRequest) -> str:
    """The URI of an empty folder."""
    uri = f"storage:{request.node.originalname}-{client.version}"
    client.run("mkdir", uri)
    return uri


def test_a_file_comes_back_byte_for_byte(
    client: ReferenceClient, place: str, tmp_path: Path
) -> None:
    data = random.Random(0).randbytes(3_000_000)
    (tmp_path / "data").write_bytes(data)

    client.run("cp", str(tmp_path / "data"), f"{place}/")
    client.run("cp", f"{place}/data", str(tmp_path / "back"))

    assert (tmp_path / "back").read_bytes() == data


def test_a_tree_comes_back_with_all_its_names(
    client: ReferenceClient, uploaded: str, tree: Path, tmp_path: Path
) -> None:
    client.run("cp", "-r", uploaded, str(tmp_path / "back"))

    assert _contents(tmp_path / "back") == _contents(tree)


def test_a_folder_is_listed_in_short_and_long(
    client: ReferenceClient, uploaded: str, tree: Path
) -> None:
    assert client.run("ls", uploaded).lines == sorted(os.listdir(tree))
    assert client.run("ls", "-d", uploaded).lines == [uploaded.removeprefix("storage:")]

    rows = [line.split(None, 4) for line in client.run("ls", "-l", uploaded).lines]

    shown = {row[4].strip(): (row[0], row[1]) for row in rows}
    assert shown["plain.txt"] == ("-m", "0")
    assert shown["файл один.txt"] == ("-m", "1000")
    assert shown["sub"][0] == "dm"


def test_a_tree_is_drawn_and_counted(client: ReferenceClient, uploaded: str) -> None:
    lines = client.run("storage", "tree", "-a", uploaded).lines

    assert lines[0] == uploaded
    assert "├── plain.txt" in lines
    assert any(line.endswith("── 日本.txt") for line in lines)
    assert lines[-1] == "3 directories, 5 files"


def test_patterns_find_files(client: ReferenceClient, uploaded: str) -> None:
    found = client.run("storage", "glob", f"{uploaded}/**/*.txt").lines

    assert len(found) == 4
    assert all(uri.startswith(f"storage://default/{client.user}/tree-") for uri in found)


def test_disk_usage_has_three_figures(client: ReferenceClient) -> None:
    lines = client.run("storage", "df").lines

    assert lines[0] == "Disk usage for cluster default:"
    assert [line.split(":")[0] for line in lines[1:]] == ["Total", "Used", "Free"]


def test_only_what_is_newer_is_copied(client: ReferenceClient, place: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("first")
    client.run("cp", str(file), f"{place}/file")
    file.write_text("older, and not copied")
    _age(file, -3600)

    client.run("cp", "-u", str(file), f"{place}/file")
    client.run("cp", f"{place}/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "first"

    file.write_text("newer")
    _age(file, +3600)
    client.run("cp", "-u", str(file), f"{place}/file")
    client.run("cp", f"{place}/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "newer"


def test_a_copy_that_was_cut_off_is_continued(
    client: ReferenceClient, place: str, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(2_500_000)
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.write_bytes(data)
    part.write_bytes(data[:1_200_000])
    _age(whole, -3600)
    client.run("cp", str(part), f"{place}/file")

    client.run("cp", "--continue", str(whole), f"{place}/file")
    client.run("cp", "--continue", f"{place}/file", str(part))

    client.run("cp", f"{place}/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert part.read_bytes() == data


def test_files_are_moved_and_removed(client: ReferenceClient, place: str, tree: Path) -> None:
    client.run("cp", "-r", str(tree), f"{place}/one")
    client.run("mkdir", "-p", f"{place}/into/deep")

    client.run("mv", f"{place}/one", f"{place}/two")
    client.run("mv", f"{place}/two/plain.txt", f"{place}/into/deep/")

    assert client.run("ls", place).lines == ["into", "two"]
    assert client.run("ls", f"{place}/into/deep").lines == ["plain.txt"]
    refused = client.run("rm", f"{place}/two", ok=False)
    assert (refused.code, "Errno 21" in refused.err) == (72, True)
    client.run("rm", "-r", f"{place}/two")
    client.run("rm", f"{place}/into/deep/*.txt")
    assert client.run("ls", place).lines == ["into"]
    assert client.run("ls", f"{place}/into/deep").out.strip() == ""


Command = Callable[[str], list[str]]


@pytest.mark.parametrize(
    "command",
    [
        lambda place: ["ls", f"{place}/missing"],
        lambda place: ["rm", f"{place}/missing"],
        lambda place: ["mv", f"{place}/missing", f"{place}/other"],
        lambda place: ["cp", f"{place}/missing", "."],
        lambda place: ["cp", "missing", f"{place}/"],
        lambda place: ["mkdir", f"{place}/missing/folder"],
        lambda place: ["mkdir", place],
        lambda place: ["ls", f"{place}/plain.txt"],
        lambda place: ["cp", __file__, f"{place}/plain.txt/below"],
        lambda place: ["ls", "storage:/nobody"],
    ],
    ids=["ls", "rm", "mv", "down", "up", "orphan", "again", "no folder", "below", "nobody"],
)
def test_what_cannot_be_done_is_an_error_72(
    client: ReferenceClient, uploaded: str, command: Command
) -> None:
    outcome = client.run(*command(uploaded), ok=False)

    assert outcome.code == 72
    assert outcome.err.startswith("ERROR: ")


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def _age(file: Path, seconds: int) -> None:
    moment = time.time() + seconds
    os.utime(file, (moment, moment))
