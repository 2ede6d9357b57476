"""From a command tree to the end of the process: what `neuro` and `neuro-flow` have in common."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from neuro.cli.context import Context

# New objects until cycles among them are looked for.
GARBAGE_AFTER = 20_000

Report = Callable[[BaseException, Context | None], int]


def run_command_line(
    command: click.Command, program: str, arguments: Sequence[str], report: Report
) -> int:
    """Run one command line and return its exit code; ``report`` turns an error into one."""
    # What a command imports and reads stays: looking through it every 700 objects finds nothing.
    gc.set_threshold(GARBAGE_AFTER)
    context: click.Context | None = None
    try:
        with command.make_context(program, list(arguments)) as context:
            result = command.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as error:
        return report(error, context.obj if context else None)
    return result if isinstance(result, int) else 0


def leave(code: int) -> NoReturn:
    """End this process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    # The interpreter's own clean-up would take 10 ms, and wait for threads that read a log.
    os._exit(code)
