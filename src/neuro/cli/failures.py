"""Errors to sentences and exit codes. Loaded on a failure.

See docs/reference/wire-protocol.md#errors.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from neuro.cli.context import Context
    from neuro.cli.output import Output

USAGE = 2
ILLEGAL = 65
CONFIG = 70
NOT_FOUND = 72
IO = 74
NOT_PERMITTED = 77
TIMEOUT = 124
MALFUNCTION = 125
BAD_VALUE = 127
INTERRUPTED = 130


class Failure(Exception):
    """An end of the command with a sentence for the person and a documented exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CutShort(BrokenPipeError):
    """Nobody reads the output any more, and what was to be done is not done."""


def report(error: BaseException, context: Context | None) -> int:
    """Say on standard error what went wrong; return the exit code."""
    from neuro.cli.output import Output as Plain

    out = context.out if context else Plain()
    if isinstance(error, BrokenPipeError):
        _forget_output()
        return 1 if isinstance(error, CutShort) else 0
    if context is not None and (context.show_traceback or out.verbose):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        return _report_click(error, out)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        out.note("")
        return INTERRUPTED
    out.error(_sentence(error))
    return exit_code(error)


def _report_click(error: click.ClickException, out: Output) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if type(error).__name__ == "NoArgsIsHelpError":  # Newer click's way to print the help.
        out.print(error.format_message())
        return 0
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
        out.say(f"{error.ctx.get_usage()}\nTry '{path} --help' for help.\n")
    out.error(error.format_message())
    return error.exit_code


def _forget_output() -> None:
    # `neuro ps | head`: nobody reads on. Python must not try to write the rest at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _sentence(error: BaseException) -> str:
    from neuro.domain.errors import PlatformError

    if isinstance(error, Failure | PlatformError | ValueError):
        return str(error)
    if isinstance(error, FileNotFoundError) and not error.filename and _folder_is_gone():
        return "The folder that you are in was deleted: go to another one with `cd`."
    if isinstance(error, OSError):
        from neuro.domain.printable import printable

        where = f": {printable(str(error.filename))}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return (
        f"Something unexpected happened ({type(error).__name__}: {error}). This is a bug in"
        " `neuro`: `neuro --show-traceback …` shows where."
    )


def _folder_is_gone() -> bool:
    # Whoever asks for the working folder is told that something is not there, and not what.
    try:
        os.getcwd()  # noqa: PTH109 - a Path would be no shorter.
    except FileNotFoundError:
        return True
    return False


def exit_code(error: BaseException) -> int:
    """The documented exit code of an error."""
    from neuro.domain.errors import PlatformError

    if isinstance(error, Failure):
        return error.exit_code
    if isinstance(error, PlatformError):
        return _platform_code(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NOT_FOUND
    if isinstance(error, PermissionError):
        return NOT_PERMITTED
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, OSError):
        return IO
    if isinstance(error, ValueError):
        return BAD_VALUE
    return 1


def _platform_code(error: BaseException) -> int:
    from neuro.client.accounts import NotConfigured
    from neuro.client.transport import ServerUnreachable
    from neuro.domain import errors

    if isinstance(error, errors.NoSuchJob):
        return ILLEGAL
    if isinstance(error, errors.InvalidInput):
        # One class says "wrong in itself" on both sides, and the two have different exit codes.
        return ILLEGAL if error.from_server else BAD_VALUE
    if isinstance(error, errors.StorageFault):
        import errno

        if error.number in (errno.ENOENT, errno.ENOTDIR):
            return NOT_FOUND
        return NOT_PERMITTED if error.number in (errno.EACCES, errno.EPERM) else IO
    codes: tuple[tuple[type[errors.PlatformError], int], ...] = (
        (NotConfigured, CONFIG),
        (ServerUnreachable, IO),
        (errors.Unavailable, MALFUNCTION),
        (errors.NotFound, NOT_FOUND),
        (errors.NotAuthenticated, NOT_PERMITTED),
        (errors.NotPermitted, NOT_PERMITTED),
        (errors.NotSupported, CONFIG),
    )
    for kind, code in codes:
        if isinstance(error, kind):
            return code
    return ILLEGAL
