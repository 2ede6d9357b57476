"""Errors to sentences and exit codes: 2 for wrong usage, 1 for what goes wrong here.

A command of ``neuro`` that fails inside ``neuro-flow`` keeps its own exit code.
"""

from __future__ import annotations

import click

from neuro.cli import failures
from neuro.cli.context import Context
from neuro.cli.failures import Failure
from neuro.flow.problems import FlowError


class Failed(Failure):
    """An end of the command with a sentence and an exit code of ``neuro-flow``'s own."""


class Delegated(Exception):
    """A command of ``neuro`` failed; its error is the cause. ``hint`` says what to do here."""

    hint: str | None = None


_OWN_CODES = (
    Failed,
    click.ClickException,
    click.Abort,
    KeyboardInterrupt,
    BrokenPipeError,
)


def report(error: BaseException, context: Context | None) -> int:
    """Say on standard error what went wrong; return the exit code."""
    if isinstance(error, Delegated) and error.__cause__ is not None:
        code = failures.report(error.__cause__, context)
        if error.hint is not None and context is not None:
            context.out.note(error.hint)
        return code
    if isinstance(error, FlowError) and context is not None:
        if context.show_traceback:
            import traceback

            traceback.print_exception(error)
        for problem in error.problems:
            context.out.error(problem.render(color=context.out.color), styled=True)
        return 1
    code = failures.report(error, context)
    return code if isinstance(error, _OWN_CODES) else 1
