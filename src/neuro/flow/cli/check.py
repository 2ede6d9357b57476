"""``neuro-flow check``: every mistake in the flow files, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.flow.cli.context import FlowContext, pass_context

if TYPE_CHECKING:
    from neuro.domain.problems import Problem


def flow_files(config_dir: Path) -> list[Path]:
    """The files that are checked in any case."""
    return sorted(
        path
        for pattern in ("*.yml", "*.yaml")
        for path in config_dir.rglob(pattern)
        if path.is_file()
    )


def as_told(problems: Sequence[Problem], notes: Sequence[Problem] = ()) -> list[dict[str, object]]:
    """One object per problem and per note, for editors and scripts."""
    return [
        {
            "file": problem.at.source.name if problem.at else None,
            "line": problem.at.line if problem.at else None,
            "column": problem.at.column if problem.at else None,
            "message": problem.message,
            "hint": problem.hint,
            "severity": severity,
        }
        for severity, found in (("error", problems), ("warning", notes))
        for problem in found
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary(problems: Sequence[Problem], files: int) -> str:
    """How many problems there are, and how many files are fine."""
    if not problems:
        return f"{_count(files, 'file')} {'is' if files == 1 else 'are'} fine."
    wrong = {problem.at.source.name for problem in problems if problem.at}
    fine = max(0, files - len(wrong))
    where = f" in {_count(len(wrong), 'file')}" if wrong else ""
    rest = f"; {_count(fine, 'file')} {'is' if fine == 1 else 'are'} fine" if fine else ""
    return f"{_count(len(problems), 'problem')}{where}{rest}."


@click.command(
    "check",
    cls=Command,
    examples="""
        neuro-flow check
        neuro-flow check --json | jq '.[].message'
    """,
)
@json_option("Print the problems as JSON.")
@pass_context
def command(context: FlowContext, as_json: bool) -> int:
    """Find every mistake in the project's flow files, and in the local actions that they use.

    It runs nothing and asks the server nothing. The exit code is 1 where there is a mistake. A
    warning marks what is allowed, but probably not meant.
    """
    from neuro.flow.project import check

    workspace, out = context.workspace, context.out
    remarks = context.remarks
    problems = check(workspace, environment=context.environment, report=remarks)
    if as_json:
        out.print(document(as_told(problems, remarks.notes)))
    else:
        context.warn()
        for problem in problems:
            out.print(problem.render(color=out.color) + "\n")
        out.print(summary(problems, len(flow_files(workspace.config_dir))))
    return 1 if problems else 0
