"""What a command prints, and how: colours, warnings, errors. The only place that prints."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from neuro.domain.printable import harmless


class Output:
    """Standard output and error of this command.

    ``verbose`` is 0, 1 or 2; ``quiet`` asks for bare ids; ``color`` says whether to style;
    ``is_terminal`` whether all three standard streams are terminals.
    """

    def __init__(
        self,
        *,
        verbose: int = 0,
        quiet: bool = False,
        color: bool | None = None,
        iso_dates: bool = False,
    ) -> None:
        """``color`` None decides by the terminal and ``NO_COLOR``."""
        self.verbose = verbose
        self.quiet = quiet
        self.iso_dates = iso_dates
        # What kept standard output from being written; commands that go on after an OSError look.
        self.lost: OSError | None = None
        self.is_terminal = all(_is_terminal(s) for s in (sys.stdin, sys.stdout, sys.stderr))
        self._is_jobs = False
        self.color = _wants_color() if color is None else color

    def leave_stdout_to_job(self) -> None:
        """From now on only a job's output goes to standard output, unless that is a terminal.

        What else is said goes to standard error, so that ``neuro run … > file`` has the output.
        """
        self._is_jobs = not _is_terminal(sys.stdout)

    def print(self, text: str = "", *, newline: bool = True) -> None:
        """A result, on standard output. Only lines, tabs and ``style``'s colours go through."""
        shown = harmless(text, colors=self.color) + ("\n" if newline else "")
        if self._is_jobs:
            sys.stderr.write(shown)
        else:
            self._write(shown)

    def draw(self, text: str) -> None:
        """Text with this program's own moves of the cursor; others' parts are printable."""
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
        except OSError as error:
            self.lost = error
            raise

    def note(self, text: str) -> None:
        """Something said besides the result, on standard error; quiet leaves it out."""
        if not self.quiet:
            self.say(text)

    def info(self, text: str) -> None:
        """A remark for ``-v``, on standard error."""
        if self.verbose:
            self.say(harmless(text, colors=False))

    def warning(self, text: str) -> None:
        """What may be wrong, on standard error. Its text has no colours: names may fake them."""
        label = self.style("WARNING:", fg="yellow", bold=True)
        self.say(f"{label} {harmless(text, colors=False)}")

    def error(self, text: str, *, styled: bool = False) -> None:
        """What went wrong, on standard error. Only a ``styled`` text keeps its colours."""
        label = self.style("ERROR:", fg="red", bold=True)
        self.say(f"{label} {text if styled else harmless(text, colors=False)}")

    def style(self, text: str, *, fg: str | None = None, bold: bool | None = None) -> str:
        """``text`` in a colour where colours are on; without colours of its own in any case."""
        text = harmless(text, colors=False)
        return click.style(text, fg=fg, bold=bold) if self.color and text else text

    def flush(self) -> None:
        try:
            sys.stdout.flush()
        except OSError as error:
            self.lost = error
            raise

    def say(self, text: str) -> None:
        """A line on standard error, whatever was asked for."""
        with suppress(OSError):  # The next write to standard output tells.
            sys.stdout.flush()  # What was printed before must be read before.
        sys.stderr.write(harmless(text, colors=self.color) + "\n")
        sys.stderr.flush()


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def _wants_color() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return _is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Columns of the terminal behind standard output; None where nothing needs to fit."""
    if not _is_terminal(sys.stdout):
        return None
    import shutil

    return shutil.get_terminal_size().columns
