"""Which files of a folder go into a build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuro.client.build_context import context_items, ignored_in
from neuro.client.storage.local import LocalFile, LocalFolder, Odd
from neuro.dockerfile.ignore import IgnoreMatcher, read_patterns
from neuro.dockerfile.tree import DockerfileError
from neuro.domain.errors import InvalidInput, StorageFault

FILES = ("Dockerfile", "a/b/c.py", "a/b/d.txt", "a/e.py", "f.txt", "g/h/i.py", "g/j")
LINES = (
    "**",
    "*",
    "a",
    "a/b",
    "**/*.py",
    "!**/*.py",
    "!a/b",
    "g/*",
    "!g/h",
    "!f.txt",
    "**/h",
    "!a/e*",
)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(LINES), max_size=5))
def test_a_file_is_sent_unless_the_patterns_leave_it_out(top: Path, lines: list[str]) -> None:
    patterns = read_patterns("\n".join(lines))
    matcher = IgnoreMatcher(patterns)

    items = list(context_items(top, patterns, ["Dockerfile"]))

    sent = {it.relative for it in items if isinstance(it, LocalFile)}
    assert sent == {it for it in FILES if it == "Dockerfile" or not matcher.ignores(it)}
    made: set[str] = {""}
    for item in items:
        assert item.relative.rpartition("/")[0] in made, "a folder comes before what is in it"
        if isinstance(item, LocalFolder):
            made.add(item.relative)


def test_what_the_builder_needs_is_sent_from_whatever_folder(top: Path) -> None:
    items = context_items(top, read_patterns("**"), ["a/b/c.py"])

    assert [it.relative for it in items] == ["a", "a/b", "a/b/c.py"]


def test_links_are_followed_and_those_that_lead_nowhere_left_out(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "around").symlink_to("..")
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")

    found = {it.relative: it for it in context_items(tmp_path, (), [])}

    assert isinstance(found["link/file"], LocalFile)
    for name in ("link/around", "real/around", "nowhere", "pipe"):
        odd = found[name]
        assert isinstance(odd, Odd)
        assert odd.special


def test_a_link_that_leads_out_of_the_context_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "key").write_text("a secret")
    top = tmp_path / "somebody's"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("x")
    (top / "sub" / "inside").symlink_to("../file")
    (top / "sub" / "around").symlink_to(tmp_path / "somebody's" / "file")
    links = {"key": "../own/key", "folder": tmp_path / "own", "sub/deep": "../../own", "all": "/"}
    for name, target in links.items():
        (top / name).symlink_to(target)
    (tmp_path / "way").symlink_to(top)

    for way in (top, tmp_path / "way"):
        found = {it.relative: it for it in context_items(way, (), [])}

        assert set(found) == {"file", "sub", "sub/inside", "sub/around", *links}
        for name in links:
            odd = found[name]
            assert isinstance(odd, Odd)
            assert odd.special


def test_a_dockerfile_that_is_a_link_out_of_the_context_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (tmp_path / "Other").write_text("FROM a")
    (top / "Dockerfile").symlink_to("../Other")

    with pytest.raises(InvalidInput, match="leads out"):
        list(context_items(top, (), ["Dockerfile"]))


def test_the_patterns_beside_the_dockerfile_come_first(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n")
    assert ignored_in(tmp_path, "sub/x")[1] == ".dockerignore"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.dockerignore").write_text("b\n")

    patterns, name = ignored_in(tmp_path, "sub/x")

    assert ([it.text for it in patterns], name) == (["b"], "sub/x.dockerignore")
    assert ignored_in(tmp_path / "sub", "Dockerfile") == ((), None)


def test_a_dockerfile_outside_of_the_context_has_its_patterns_beside_it(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", str(tmp_path / "Other")
    top.mkdir()
    (top / ".dockerignore").write_text("a\n")
    assert ignored_in(top, outside)[1] == ".dockerignore"
    (tmp_path / "Other.dockerignore").write_text("b\n")

    patterns, name = ignored_in(top, outside)

    assert ([it.text for it in patterns], name) == (["b"], f"{outside}.dockerignore")


def test_a_pattern_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n!\n")

    with pytest.raises(DockerfileError, match="line 2"):
        ignored_in(tmp_path, "Dockerfile")


@pytest.mark.parametrize("name", ["file", "gone"])
def test_what_is_no_folder_is_no_context(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageFault):
        list(context_items(tmp_path / name, (), []))
