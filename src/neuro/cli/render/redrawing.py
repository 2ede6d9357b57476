"""Lines that are drawn over those that were drawn before them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence

from neuro.domain.printable import display_width, harmless

_COLOR = re.compile(r"\x1b\[[\d;]*m")


def rows_of(line: str, width: int) -> int:
    """How many rows of a screen of ``width`` columns a line takes."""
    return max(-(-display_width(_COLOR.sub("", line)) // width), 1)


class Redrawing:
    """The end of a terminal's screen, drawn again and again in one place."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of the ones before. Only colours and text go through."""
        width = shutil.get_terminal_size().columns
        sys.stdout.write(
            self._back(width) + "".join(f"{harmless(line)}\x1b[K\n" for line in lines) + "\x1b[J"
        )
        sys.stdout.flush()
        self._drawn = [*lines]

    def say(self, text: str) -> None:
        """Something that stays: what is drawn next stands below it."""
        back = self._back(shutil.get_terminal_size().columns)
        sys.stdout.write(f"{back}\x1b[J{harmless(text)}\n")
        sys.stdout.flush()
        self._drawn = []

    def begin(self) -> None:
        """Leave what is drawn where it is: something else was printed below it."""
        self._drawn = []

    def _back(self, width: int) -> str:
        # A terminal that became narrower has broken lines that had fitted.
        rows = sum(rows_of(line, width) for line in self._drawn)
        return f"\r\x1b[{rows}A" if rows else ""
