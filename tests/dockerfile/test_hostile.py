"""Dockerfiles that somebody wrote to break what reads them: their own error, soon, or a plan."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuro.dockerfile.expansion import ExpansionError, expand
from neuro.dockerfile.image import Image
from neuro.dockerfile.parser import parse
from neuro.dockerfile.plan import plan
from neuro.dockerfile.steps import ImagesNeeded
from neuro.dockerfile.tree import DockerfileError
from tests.dockerfile.table import INSTRUCTIONS, SEVERAL_LINES

MANY = "9" * 5000
# Pieces that mean something somewhere, and values at their limits.
_PIECES = r"""
FROM RUN COPY ADD ENV ARG LABEL USER WORKDIR EXPOSE VOLUME CMD ENTRYPOINT SHELL HEALTHCHECK ONBUILD
STOPSIGNAL AS NONE scratch a:b $x ${x} ${x:-y} ${x##*a} ${x%%?} ${x//a*/b} --from=0 --from=9
--chmod=u+x --chmod=7 --chmod= --chown=1:1 --link --parents --exclude=** --checksum=sha256:0
--keep-git-dir --mount=type=cache,target=/ --mount=type=tmpfs,size= --mount=type=secret,id=,uid=
--network=none --retries= --interval= 1h http://[x https://[::1 http://a/b git@a:b.git ssh://
https://a/b.git?ref=x#y:z <<EOF EOF <<-'E' ["a"] [ ] { } " ' \ ` = : / . .. * ** ? # $ % ~ ² ٣
"""
PIECES = [
    *_PIECES.split(),
    *("# escape=`\n", "# syntax=x\n", "\n", "\\\n", " ", "\t", "\r\n", "\0", "\ud800"),
    *(MANY, f"1.{MANY}"),
]
FILES = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from([*INSTRUCTIONS.strip().split("\n"), *SEVERAL_LINES]),
        st.text(max_size=6),
    ),
    max_size=25,
).flatmap(lambda pieces: st.sampled_from(["", " ", "\n"]).map(lambda gap: gap.join(pieces)))
IMAGE = Image()


def read(text: str) -> None:
    """Read it to its plan. Raises DockerfileError."""
    tree = parse(text)
    found = plan(tree, arguments={"x": "aba"})
    if isinstance(found, ImagesNeeded):
        plan(tree, arguments={"x": "aba"}, images=dict.fromkeys(found.images, IMAGE))


@given(FILES)
@example(f"FROM a\nHEALTHCHECK --retries={MANY} CMD x")
@example(f"FROM a\nHEALTHCHECK --interval={MANY}s CMD x")
@example(f"FROM a\nRUN --mount=type=tmpfs,target=/a,size={MANY} x")
@example("FROM a\nADD http://[x /")
def test_whatever_is_written_is_planned_or_told_to_be_wrong(text: str) -> None:
    # Anything else that is raised fails the test.
    with suppress(DockerfileError):
        read(f"FROM a\n{text}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"HEALTHCHECK --retries={MANY} CMD x", "is not a number of retries"),
        (f"HEALTHCHECK --interval={MANY}h CMD x", "--interval="),
        (f"RUN --mount=type=tmpfs,target=/a,size={MANY} x", "is not a size"),
        (f"RUN --mount=type=tmpfs,target=/a,size={MANY}p x", "is not a size"),
        ("ADD http://[x /", "It is not a URL"),
        ("ADD --unpack=true https://[::1/x.tar /", "It is not a URL"),
        (f"STOPSIGNAL {MANY}", "is not a signal"),
        (f"EXPOSE {MANY}", "is not a port"),
        (f"COPY --chmod={'7' * 5000} a b", "is not a mode"),
    ],
)
def test_what_no_number_or_url_can_be_is_told_with_its_line(line: str, said: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        read(f"FROM a\n\n{line}\n")

    [problem] = raised.value.problems
    assert said in problem.message
    assert problem.at is not None
    assert problem.at.line == 3


@pytest.mark.parametrize("word", ["${x##%s}", "${x%%%%%s}", "${x//%s/y}"])
def test_a_pattern_that_is_too_much_work_is_told_soon(word: str) -> None:
    began = time.process_time()

    with pytest.raises(ExpansionError, match="too long for each other"):
        expand(word.replace("%s", "*a?" * 3000).replace("%%", "%"), {"x": "ab" * 200_000})

    assert time.process_time() - began < 20


def test_many_such_patterns_have_one_limit() -> None:
    lines = [f"ENV y{number}=${{x##{'*a?' * 300}b}}" for number in range(3000)]
    began = time.process_time()

    with pytest.raises(DockerfileError):
        read("\n".join(["FROM scratch", f"ENV x={'ab' * 5000}", *lines]))

    assert time.process_time() - began < 60
