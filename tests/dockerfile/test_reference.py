"""The same Dockerfiles, read and planned here and by BuildKit's own code."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.dockerfile.parser import parse
from neuro.dockerfile.steps import context_paths
from neuro.dockerfile.tree import DockerfileError
from tests.dockerfile import compared
from tests.dockerfile.reference import Reference, Refused
from tests.dockerfile.table import CASES, CONFIGURATIONS, INSTRUCTIONS, SEVERAL_LINES, Case

PIECES = [*INSTRUCTIONS.strip().split("\n"), *SEVERAL_LINES]


def is_right(piece: str) -> bool:
    try:
        compared.planned(Case(f"FROM busy:1\n{piece}"))
    except DockerfileError:
        return False
    return True


# What is wrong hides the rest of a file: most are to be right.
RIGHT = [piece for piece in PIECES if is_right(piece)]
BASES = ["scratch", "busy:1", "triggers", "one", "two", "alpine:$V", "--platform=linux/arm64 q"]
STAGES = st.builds(
    lambda base, name, lines, last: "\n".join(
        [f"FROM {base} AS {name}" if name else f"FROM {base}", *lines, *last]
    ),
    st.sampled_from(BASES),
    st.sampled_from(["one", "two", "Three", ""]),
    st.lists(st.sampled_from(RIGHT), max_size=5),
    st.lists(st.sampled_from(PIECES), max_size=1),
)
FILES = st.builds(
    lambda first, stages: "\n".join([first, *stages]),
    st.sampled_from(["ARG V=9", "ARG V", "ARG BASE=busy:1 V=${V:-3}", ""]),
    st.lists(STAGES, min_size=1, max_size=3),
)
TEXTS = st.builds(
    lambda text, at, letter: text[: at % (len(text) + 1)] + letter + text[at % (len(text) + 1) :],
    FILES,
    st.integers(0, 10_000),
    st.sampled_from(["", "", *"\\ \n'\"<[]{}$=-,#`\t"]),
)


def test_the_table_is_long() -> None:
    assert len(CASES) > 200
    assert max(Counter(CASES_BY_TEXT).values()) == 1


CASES_BY_TEXT = [f"{case.text}|{case.arguments}|{case.target}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=CASES_BY_TEXT)
def test_a_file_of_the_table(reference: Reference, case: Case) -> None:
    check_parsed(reference, case.text)
    check_planned(reference, case)


@given(TEXTS)
def test_any_file_is_read_alike(reference: Reference, text: str) -> None:
    check_parsed(reference, text)


@given(
    FILES,
    st.sampled_from([{}, {"V": "7"}, {"HTTP_PROXY": "p", "TARGETARCH": "x"}]),
    st.sampled_from(["", "", "one", "THREE", "nope"]),
    st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v7"]),
)
def test_any_file_is_planned_alike(
    reference: Reference, text: str, arguments: dict[str, str], target: str, platform: str
) -> None:
    check_planned(reference, Case(text, arguments, target, platform))


def check_parsed(reference: Reference, text: str) -> None:
    try:
        theirs, line = reference.ask("parse", text), 0
    except Refused as refused:
        theirs, line = None, refused.line
    if theirs is not None:
        ours = compared.parsed(parse(text))
        assert [node[1:] for node in ours] == [node[1:] for node in compared.parsed_there(theirs)]
        assert all(node[0] >= other["line"] for node, other in zip(ours, theirs, strict=True))
        return

    with pytest.raises(DockerfileError) as wrong:
        parse(text)

    # It names the line where the instruction begins, we the line of the word.
    assert any(problem.at and problem.at.line >= line for problem in wrong.value.problems)


def check_planned(reference: Reference, case: Case) -> None:
    try:
        theirs = reference.ask(
            "plan",
            case.text,
            args=case.arguments,
            target=case.target,
            platform=case.platform,
            images=CONFIGURATIONS,
        )
    except Refused:
        with pytest.raises(DockerfileError):
            compared.planned(case)
        return

    ours = compared.planned(case)

    assert compared.image_of(msgspec.to_builtins(ours.image)) == compared.image_of(theirs["image"])
    # It only lists what the result is made of.
    done = theirs["operations"] or []
    assert not Counter(compared.commands_there(done)) - Counter(compared.commands(ours))
    assert not Counter(compared.copies_there(done)) - Counter(compared.copies(ours))
    sent = {path.removeprefix("/") or "/" for path in context_paths(ours)}
    # It takes a repository for a path, and sends everything for a tmpfs, which needs nothing.
    there = {path for path in compared.context_there(done) if not path.startswith("git@")}
    assert sent == {"/"} or "tmpfs" in case.text or there <= sent
