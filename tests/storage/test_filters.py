"""Patterns of ``--exclude``, ``--include`` and ``.neuroignore``: the same as git's own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuro.client.storage.filters import Filter, Rule, parse_ignore_file
from neuro.client.storage.local import walk


def keeps(patterns: str, path: str, *, is_folder: bool = False) -> bool:
    return Filter(parse_ignore_file(patterns)).keeps(path, is_folder=is_folder)


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("a", ["a", "x/a", "x/y/a"], ["b", "aa", "ab/c"]),
        ("*.txt", ["a.txt", "x/b.txt", ".txt"], ["a.txt2", "txt"]),
        ("/a", ["a"], ["x/a"]),
        ("x/a", ["x/a"], ["y/x/a", "a"]),
        ("x/*", ["x/a"], ["x/a/b", "x"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["b"]),
        ("x/**", ["x/a", "x/a/b"], ["x", "y/x/a"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["a", "y/a"]),
        ("?", ["a", "x/b"], ["ab", "x/ab"]),
        ("[a-c]", ["a", "c"], ["d", "ab"]),
        ("[!a-c]", ["d"], ["a", "c"]),
        ("[]x]", ["]", "x"], ["a"]),
        ("[a", [], ["[a", "a"]),
        (r"\*", ["*"], ["a"]),
        (r"\!a", ["!a"], ["a"]),
        (r"\#a", ["#a"], ["a"]),
        ("a ", ["a"], ["a "]),
        (r"a\ ", ["a "], ["a"]),
        ("# a", [], ["a", "# a"]),
        ("", [], ["a"]),
        ("данные*", ["данные.csv"], ["данны"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a+(b)|c$", ["a+(b)|c$"], ["aab"]),
    ],
)
def test_a_pattern_leaves_out_what_it_matches(
    pattern: str, left_out: list[str], kept: list[str]
) -> None:
    assert [path for path in left_out if keeps(pattern, path)] == []
    assert [path for path in kept if not keeps(pattern, path)] == []


def test_a_slash_at_the_end_is_for_folders_only() -> None:
    assert keeps("build/", "build")
    assert not keeps("build/", "x/build", is_folder=True)


def test_the_last_match_decides() -> None:
    patterns = "*.txt\n!keep.txt\nsub/keep.txt\n"

    assert not keeps(patterns, "a.txt")
    assert keeps(patterns, "keep.txt")
    assert not keeps(patterns, "sub/keep.txt")


def test_a_file_of_a_windows_editor_has_the_same_patterns(tmp_path: Path) -> None:
    (tmp_path / ".neuroignore").write_bytes(b"\xef\xbb\xbf*.pyc\r\nbuild/\r\n")
    (tmp_path / "a.pyc").touch()
    (tmp_path / "a.py").touch()
    (tmp_path / "build").mkdir()

    found = [item.relative for item in walk(tmp_path, Filter(), [".neuroignore"])]

    assert found == [".neuroignore", "a.py"]


def test_patterns_of_a_folder_hold_below_it_only() -> None:
    rules = [Rule("*.txt", base="sub"), Rule("/a", base="sub")]

    assert Filter(rules).keeps("x.txt", is_folder=False)
    assert not Filter(rules).keeps("sub/y/x.txt", is_folder=False)
    assert not Filter(rules).keeps("sub/a", is_folder=False)
    assert Filter(rules).keeps("sub/y/a", is_folder=False)


def test_patterns_from_above_see_the_whole_way() -> None:
    keep = Filter([Rule("/project/data", outer="project"), Rule("*.tmp", outer="project")])

    assert not keep.keeps("data", is_folder=True)
    assert not keep.keeps("a/b.tmp", is_folder=False)
    assert keep.keeps("a/data", is_folder=True)


NAMES = st.text(alphabet="ab.#! ", min_size=1, max_size=4).filter(
    lambda name: name.strip(". ") and name == name.strip()
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PIECES = st.sampled_from(
    ["a", "b", ".", "*", "?", "[ab]", "[!a]", r"\a", "/", "**/", "/**", "#", "!"]
)
PATTERNS = (
    # Nothing says what two slashes in a row mean, nor "**" beside another character.
    st.lists(PIECES, min_size=1, max_size=6)
    .map("".join)
    .filter(lambda text: not re.search(r"//|[^/]\*\*|\*\*[^/]", text))
)


def git_ignores(folder: Path, patterns: list[str], path: str) -> bool:
    (folder / ".gitignore").write_text("\n".join(patterns) + "\n")
    answer = subprocess.run(
        ["git", "-c", "core.quotePath=off", "check-ignore", "--no-index", "-q", "--", path],
        cwd=folder,
        check=False,
    )
    assert answer.returncode in (0, 1)
    return answer.returncode == 0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=3), path=PATHS)
def test_git_would_decide_the_same(repository: Path, patterns: list[str], path: str) -> None:
    rules = Filter(parse_ignore_file("\n".join(patterns)))
    names = path.split("/")

    # What lies in a folder that is left out is left out with it.
    above = ["/".join(names[:depth]) for depth in range(1, len(names))]
    kept = all(rules.keeps(folder, is_folder=True) for folder in above)
    kept = kept and rules.keeps(path, is_folder=False)

    assert kept != git_ignores(repository, patterns, path)


@given(patterns=st.lists(st.text(max_size=12), max_size=4), path=PATHS)
def test_no_pattern_and_no_path_is_a_failure(patterns: list[str], path: str) -> None:
    assert keeps("\n".join(patterns), path) in (True, False)
