"""Every kind of mistake is told with its place, and never raises anything else."""

import pytest

from neuro.domain.problems import Problem, Source
from neuro.flow.problems import Report
from neuro.flow.syntax.reader import (
    read_action,
    read_any,
    read_batch,
    read_live,
    read_project,
)
from tests.flow.syntax.broken import EXPRESSIONS, KEYS, TASK, VALUES, YAML

READ = {"live": read_live, "batch": read_batch, "project": read_project, "action": read_action}


def problems(kind: str, text: str) -> tuple[Problem, ...]:
    report = Report()
    READ[kind](Source("file.yml", text), report)
    return report.sorted()


def place(text: str) -> tuple[str, int, int]:
    """The text without the mark, and the line and the column of the mark."""
    before, mark, after = text.partition("▶")
    assert mark
    return before + after, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@pytest.mark.parametrize(("kind", "marked", "message"), [*YAML, *KEYS, *VALUES])
def test_a_mistake_is_told_with_its_place(kind: str, marked: str, message: str | None) -> None:
    text, line, column = place(marked)
    found = problems(kind, text)
    assert found
    if message is None:
        return
    told = [(p.message, p.at.line, p.at.column) for p in found if p.at is not None]
    assert told[0] == (message, line, column)
    assert len(found) == 1 or message.startswith("Expr"), told


HINTS = {
    "enable: sucess()": "Did you mean the expression ${{ success() }}?",
    "enable: not allways() or f()": "Did you mean the expression ${{ not always() or f() }}?",
    "enable: ${{ sucess() }}": "Did you mean 'success'?",
    "needs: [{a: running}]": "Write them without dashes: `needs: {a: running}`.",
    "needs: [{a: running}, b]": "Write them without dashes: `needs: {a: running, b: completed}`.",
}


@pytest.mark.parametrize("line", HINTS)
def test_what_to_write_instead(line: str) -> None:
    (problem,) = problems("batch", f"{TASK}  {line}\n")
    assert problem.hint == HINTS[line]


def test_a_batch_that_is_an_action_is_told_how_to_be_called() -> None:
    (problem,) = problems("batch", "kind: batch\ninputs: {n: {}}\noutputs: {}\ntasks: []\n")
    assert problem.hint is not None
    assert "Call it from a batch, with `action: ws:path`" in problem.hint


@pytest.mark.parametrize(("kind", "marked"), EXPRESSIONS)
def test_a_bad_expression_is_told_at_its_character(kind: str, marked: str) -> None:
    text, line, column = place(marked)
    told = [(p.at.line, p.at.column) for p in problems(kind, text) if p.at is not None]
    assert (line, column) in told


@pytest.mark.parametrize(("kind", "marked", "message"), [*YAML, *KEYS, *VALUES])
def test_reading_as_any_kind_never_raises(kind: str, marked: str, message: str | None) -> None:
    text = place(marked)[0]
    for read in (*READ.values(), read_any):
        report = Report()
        read(Source("file.yml", text), report)
        for problem in report.problems:
            assert problem.render()
            assert problem.render(color=True)
