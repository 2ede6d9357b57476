from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.dockerfile import parser
from neuro.dockerfile.parser import parse
from neuro.dockerfile.tree import (
    Add,
    Arg,
    Copy,
    DockerfileError,
    Healthcheck,
    Instruction,
    Onbuild,
    Run,
)


def first(text: str) -> Instruction:
    return parse(f"FROM a\n{text}").stages[0].instructions[0]


def told(text: str) -> list[tuple[int, int, str, str | None]]:
    with pytest.raises(DockerfileError) as wrong:
        parse(text)
    return [
        (problem.at.line, problem.at.column, problem.message, problem.hint)
        for problem in wrong.value.problems
        if problem.at
    ]


def test_a_file_becomes_stages() -> None:
    tree = parse("ARG V=1\nFROM a:$V AS One\nRUN x\nfrom --platform=linux/arm64 one\nCMD y\n")

    assert [(stage.name, stage.begin.base.text) for stage in tree.stages] == [
        ("one", "a:$V"),
        ("", "one"),
    ]
    assert [pair.name.text for arg in tree.arguments for pair in arg.pairs] == ["V"]
    assert tree.stages[1].begin.platform is not None
    assert tree.stages[1].begin.platform.at[1:] == (4, 6)


def test_every_word_knows_its_place() -> None:
    copy = first("COPY --chown=1:2 a \\\n  # between\n   bc \\\n  /d")

    assert isinstance(copy, Copy)
    assert [(word.text, *word.at[1:]) for word in (*copy.sources, copy.destination)] == [
        ("a", 2, 18),
        ("bc", 4, 4),
        ("/d", 5, 3),
    ]
    assert copy.chown is not None
    assert copy.chown.at[1:] == (2, 6)


def test_here_documents_have_their_lines() -> None:
    run = first("RUN <<ONE cat <<-'TWO'\na $x\nONE\n\tb\n\tTWO\n")

    assert isinstance(run, Run)
    assert [(one.name, one.content, one.expand) for one in run.command.heredocs] == [
        ("ONE", "a $x\n", True),
        ("TWO", "b\n", False),
    ]


def test_files_may_be_written_in_place() -> None:
    copy = first("COPY <<a.txt <<b.txt c /d/\n1\na.txt\n2\nb.txt\n")

    assert isinstance(copy, Copy)
    assert [(one.name, one.text) for one in copy.contents] == [("a.txt", "1\n"), ("b.txt", "2\n")]
    assert [word.text for word in copy.sources] == ["c"]


def test_flags_are_typed() -> None:
    add = first("ADD --link --keep-git-dir=false --exclude=a --exclude=b --checksum=sha256:0 u /d")

    assert isinstance(add, Add)
    assert (add.link, add.keep_git_dir, add.unpack) == (True, False, None)
    assert [word.text for word in add.excludes] == ["a", "b"]


def test_a_health_check_has_its_times() -> None:
    check = first('HEALTHCHECK --interval=1m30s --retries=3 CMD ["a", "b"]')

    assert isinstance(check, Healthcheck)
    assert (check.interval, check.retries, check.timeout) == (90 * 10**9, 3, 0)


def test_an_argument_may_have_no_default() -> None:
    arg = first('ARG a b= c="d e"')

    assert isinstance(arg, Arg)
    assert [(pair.name.text, pair.value and pair.value.text) for pair in arg.pairs] == [
        ("a", None),
        ("b", ""),
        ("c", '"d e"'),
    ]


def test_a_trigger_is_kept_as_it_is_written() -> None:
    trigger = first("ONBUILD RUN <<A\n b\nA\n")

    assert isinstance(trigger, Onbuild)
    assert trigger.trigger == "RUN <<A\n b\nA"


def test_the_escape_may_be_a_backtick() -> None:
    tree = parse("# escape=`\nFROM a\nRUN dir c:\\ `\n  b\n")

    assert tree.escape == "`"
    assert len(tree.stages[0].instructions) == 1


@pytest.mark.parametrize(
    "syntax",
    [
        "docker/dockerfile:1",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile",
        "docker/dockerfile:1 x",
    ],
)
def test_the_usual_syntax_is_understood(syntax: str) -> None:
    assert parse(f"# syntax={syntax}\nFROM a").stages


BEGIN = "Begin with FROM and an image: FROM python:3.12."
ELSEWHERE = "The syntax 'example.com/other' is not supported: it is a program from elsewhere."


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "",
            [
                (
                    1,
                    1,
                    "The file has no instructions.",
                    BEGIN,
                )
            ],
        ),
        (
            "ARG x\n",
            [(1, 1, "The file has no FROM.", BEGIN)],
        ),
        ("RUN x\nFROM a", [(1, 1, "RUN stands before the first FROM.", "Only ARG may.")]),
        ("FROM a\n RNU x", [(2, 2, "'RNU' is not an instruction.", "Did you mean 'RUN'?")]),
        (
            "FROM a b",
            [(1, 1, "FROM needs an image, and maybe AS and a name.", "FROM IMAGE AS NAME")],
        ),
        (
            "FROM a\nCOPY a --chwon=1 b\nCOPY --chwon=1 a b",
            [(3, 6, "COPY has no flag '--chwon'.", "Did you mean 'chown'?")],
        ),
        (
            "FROM a\nRUN --security=insecure x",
            [
                (
                    2,
                    1,
                    "RUN --security is not supported: builds never run with more rights.",
                    "Remove the flag.",
                )
            ],
        ),
        (
            "# syntax=example.com/other\nFROM a",
            [
                (
                    1,
                    10,
                    ELSEWHERE,
                    "Write 'docker/dockerfile:1', or remove the line.",
                )
            ],
        ),
        (
            "FROM a\nRUN <<E\nx",
            [(2, 1, "The here-document E does not end.", "Add a line that is just E.")],
        ),
        (
            "FROM a\nENV a=1 \\\n  b",
            [(3, 3, "'b' has no '='.", "Write name=value, with quotes around spaces.")],
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    text: str, problems: list[tuple[int, int, str, str | None]]
) -> None:
    assert told(text) == problems


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = told("FROM a as 9\nCOPY --a --b x\nFOO\nEXPOSE\nRUN x\nHEALTHCHECK --retries=x CMD y\n")

    assert [line for line, *_ in found] == [1, 2, 3, 4, 6]


def test_a_problem_shows_its_line() -> None:
    with pytest.raises(DockerfileError) as wrong:
        parse("FROM a\nCOPY --form=b x y\n", "docker/Dockerfile")

    assert str(wrong.value) == (
        "COPY has no flag '--form'.\n"
        '  in "docker/Dockerfile", line 2, column 6\n'
        "    COPY --form=b x y\n"
        "         ^\n"
        "  Did you mean 'from'?"
    )


def test_what_is_likely_a_mistake_is_noted() -> None:
    tree = parse("FROM a\nENV b c\nCMD ['x']\nMAINTAINER m\nRUN a \\\n\n  b\n")

    assert [note.at.line for note in tree.notes if note.at] == [2, 3, 4, 6]


def test_text_that_is_not_utf8_is_told() -> None:
    with pytest.raises(DockerfileError) as wrong:
        parse(b"FROM a\nRUN \xff")

    assert wrong.value.problems[0].at is not None
    assert wrong.value.problems[0].at[1:] == (2, 5)


def test_a_file_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "MAX_INSTRUCTIONS", 2)

    assert told("FROM a\n" + "#" * parser.MAX_BYTES)[0][2].startswith("The file has 1,048,583")
    assert told("FROM a\nRUN b\nRUN c") == [(3, 1, "The file has more than 2 instructions.", None)]


PIECES = """FROM a|RUN x \\|RUN <<E|E|COPY <<-'E' <<F /x|F|ENV a='b|CMD ["a", |# escape=`|\\|ARG
ONBUILD RUN <<E|HEALTHCHECK --interval=1 CMD|LABEL a=b\\|RUN --mount=type=x,"||FROM --x y"""
LINES = st.sampled_from(re.split(r"[|\n]", PIECES))
TEXTS = st.one_of(
    st.text(),
    st.binary(),
    st.lists(st.one_of(LINES, st.text(max_size=8)), max_size=12).map("\n".join),
)


@given(TEXTS)
def test_every_text_is_a_tree_or_has_a_place_for_what_is_wrong(text: str | bytes) -> None:
    try:
        tree = parse(text)
    except DockerfileError as wrong:
        tree = None
        problems = wrong.problems
    if tree is None:
        assert problems
        assert all(problem.at and problem.at.line and problem.render() for problem in problems)
    else:
        assert tree.stages


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from("\\ '\"$<[{#=\t-\n"),
    st.sampled_from(["RUN ", "ENV a=", "COPY --x=", "ONBUILD RUN [", "RUN <<"]),
)
def test_long_lines_take_a_moment(letter: str, beginning: str) -> None:
    began = time.process_time()

    with pytest.raises(DockerfileError):
        parse("FROM a\n" + beginning + letter * 200_000 + "\nFOO")

    assert time.process_time() - began < 10
