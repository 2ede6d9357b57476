"""What a build says: in which order, and how often whoever reads along is woken."""

from __future__ import annotations

import io
from pathlib import Path

from neuro.builder.reporting import Report
from tests.builder.built import build


class Written(io.StringIO):
    """What was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


class Clock:
    """A time that goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_that_may_be_held_come_before_the_next_that_may_not() -> None:
    out = Written()
    report = Report(out, Clock())

    report.begin("one", held=True).end(cached=True, held=True)
    assert out.pieces == []
    report.begin("two")

    assert out.pieces == ["#1 one\n#1 CACHED\n#2 two\n"]


def test_no_line_is_held_for_long() -> None:
    out, clock = Written(), Clock()
    report = Report(out, clock)

    task = report.begin("one", held=True)
    clock.now = 0.02
    task.end(cached=True, held=True)

    assert out.pieces == ["#1 one\n#1 CACHED\n"]


def test_what_is_held_is_said_before_anybody_waits() -> None:
    out = Written()
    report = Report(out, Clock())

    report.begin("one", held=True)
    report.flush()
    report.flush()

    assert out.pieces == ["#1 one\n"]


def test_steps_of_the_cache_are_told_together(tmp_path: Path) -> None:
    context, cache = tmp_path / "context", tmp_path / "cache"
    for folder in (context, cache):
        folder.mkdir()
    (context / "a.txt").write_text("a")
    text = "FROM scratch\nCOPY a.txt /\n" + "".join(f"WORKDIR /{n}\n" for n in range(19))
    with build(text, context, cache):
        pass
    out = Written()

    with build(text, context, cache, out=out):
        pass

    lines = out.getvalue().splitlines()
    assert len(out.pieces) <= 3
    assert lines[0] == "#1 [2/21] COPY a.txt /"
    assert lines[1::2] == [f"#{number} CACHED" for number in range(1, 21)]


def test_a_step_that_is_made_is_told_before_it_ends(tmp_path: Path) -> None:
    for folder in ("context", "cache"):
        (tmp_path / folder).mkdir()
    out = Written()

    with build(
        "FROM scratch\nWORKDIR /a\nWORKDIR /b\n", tmp_path / "context", tmp_path / "cache", out=out
    ):
        pass

    assert [piece.splitlines()[-1] for piece in out.pieces] == [
        "#1 [2/3] WORKDIR /a",
        "#1 DONE 0.0s",
        "#2 [3/3] WORKDIR /b",
        "#2 DONE 0.0s",
    ]
