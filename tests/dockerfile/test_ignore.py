from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.dockerfile.globs import BadPattern, matches
from neuro.dockerfile.ignore import TOP, IgnoreMatcher, Verdict, read_patterns
from neuro.dockerfile.tree import DockerfileError
from tests.dockerfile.reference import Reference, Refused
from tests.flow.work import calls

NAMES = ("a", "b", "ab", "a.py", "foo", "foo.bar", ".git", "a+b", "[x]")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(
    [*NAMES, "*", "**", "a*", "*.py", "?", "x[0-9]", "[^a]*", "f*o", "*o*", "a**", "\\*a", "."]
)
LINES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "!", " ", "/", "! ", "#"]),
        st.lists(PARTS, min_size=1, max_size=4).map("/".join),
        st.sampled_from(["", "/", " "]),
    ),
)


def matcher(*lines: str) -> IgnoreMatcher:
    return IgnoreMatcher(read_patterns("\n".join(lines)))


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["*.pyc"], ["a.pyc"], ["b/a.pyc", "a.py"]),
        (["**/*.pyc"], ["a.pyc", "b/c/a.pyc"], ["a.py"]),
        (["node_modules"], ["node_modules", "node_modules/a/b"], ["x/node_modules"]),
        (["*", "!src"], ["a", "b/c"], ["src", "src/a"]),
        (["*", "!src/*.py"], ["src/a.c", "a.py"], ["src/a.py"]),
        (["texts", "!texts/a.md", "texts/a.md"], ["texts/a.md"], []),
        (["/a/./b/"], ["a/b", "a/b/c"], ["a"]),
        (["# a", "#b"], [], ["a", "b", "# a"]),
        (["**"], ["a", "b/c"], []),
        (["a/**"], ["a/b", "a/b/c"], ["a", "ab"]),
    ],
)
def test_lines_leave_files_out(lines: list[str], ignored: list[str], kept: list[str]) -> None:
    asked = matcher(*lines)

    assert [path for path in ignored if not asked.ignores(path)] == []
    assert [path for path in kept if asked.ignores(path)] == []


def test_all_wrong_lines_are_told_with_their_places() -> None:
    with pytest.raises(DockerfileError) as wrong:
        read_patterns("a\n!\n[b\n")

    assert [
        (problem.at.line, problem.message) for problem in wrong.value.problems if problem.at
    ] == [(2, "Nothing stands behind the '!'."), (3, "'[b' has a [ that is not closed.")]


def test_a_folder_is_left_alone_where_no_line_reaches_into_it() -> None:
    asked = matcher("node_modules", "build", "!build/keep/*.txt")

    assert not asked.may_keep_below("node_modules", asked.verdict("node_modules"))
    build = asked.verdict("build")
    assert asked.may_keep_below("build", build)
    assert not asked.may_keep_below("build/other", asked.verdict("build/other", build))


@given(st.lists(LINES, min_size=1, max_size=5), st.lists(PATHS, min_size=1, max_size=20))
def test_lines_leave_out_what_they_leave_out_in_the_reference(
    reference: Reference, lines: list[str], paths: list[str]
) -> None:
    text = "\n".join(lines)
    try:
        theirs = reference.ask("ignore", text, paths=paths)
    except Refused:
        with pytest.raises(DockerfileError):
            read_patterns(text)
        return

    asked = IgnoreMatcher(read_patterns(text))

    assert [asked.ignores(path) for path in paths] == theirs


@given(st.lists(LINES, min_size=1, max_size=5), PATHS)
def test_nothing_that_is_kept_lies_in_a_folder_that_is_left_alone(
    lines: list[str], path: str
) -> None:
    asked = matcher(*lines)
    verdict, folder = TOP, ""
    for name in path.split("/")[:-1]:
        folder = f"{folder}/{name}" if folder else name
        verdict = asked.verdict(folder, verdict)
        if not asked.may_keep_below(folder, verdict):
            assert asked.ignores(path)


@given(
    st.lists(st.sampled_from([*"a*?\\-[]é", "[a-c]", "[^a]", "[\\]]", "[b-a]"]), max_size=5),
    st.lists(st.text("ab*/é]-c", max_size=5), min_size=1, max_size=8),
)
def test_a_pattern_of_copy_matches_what_it_matches_in_the_reference(
    reference: Reference, pieces: list[str], paths: list[str]
) -> None:
    pattern = "".join(pieces)
    try:
        ours = [matches(pattern, path) for path in paths]
    except BadPattern:
        # The reference stops at the first letter that does not match, and sees no more.
        try:
            assert not any(reference.ask("glob", pattern, paths=paths))
        except Refused:
            return
    else:
        assert ours == reference.ask("glob", pattern, paths=paths)


def test_a_file_costs_as_little_with_many_lines_as_with_few() -> None:
    lines = ["**/*.pyc", "**/__pycache__", ".git", "node_modules", "**/.venv", "data/*", "*.log"]
    asked = matcher(*lines, "!data/keep", "!important.log", "**/.DS_Store", "build", "dist/**")
    folder = asked.verdict("package")

    def ask() -> None:
        for name in range(1000):
            asked.verdict(f"package/file{name}.py", folder)

    # Each line is looked at once when it is read, and a run of lines as a whole for each file.
    assert calls(ask) <= 15 * 1000


def test_stars_without_end_take_a_moment() -> None:
    asked = matcher("*a" * 40 + "b", "**/*a*/" * 15 + "b", "**/" * 1000 + "b*b*b*b*b*b*b*b*c")
    deep = "/".join(["a" * 100] * 40)

    assert asked.verdict("a" * 255) == asked.verdict(deep) == Verdict(False)
    with pytest.raises(DockerfileError, match="too many"):
        matcher("a**/a" * 9)
