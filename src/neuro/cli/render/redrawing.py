"""Lines that are drawn over those that were drawn before them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence

from neuro.domain.printable import display_width, harmless

_COLOR = re.compile(r"\x1b\[[\d;]*m")


class Redrawing:
    """The end of a terminal's screen, drawn again and again in one place."""

    def __init__(self) -> None:
        self._drawn: list[int] = []  # how wide each line is

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of the ones before. Only colours and text go through."""
        width = shutil.get_terminal_size().columns
        sys.stdout.write(
            self._back(width) + "".join(f"{harmless(line)}\x1b[K\n" for line in lines) + "\x1b[J"
        )
        sys.stdout.flush()
        self._drawn = [display_width(_COLOR.sub("", line)) for line in lines]

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
        # A line that is too wide takes several rows of the screen; a terminal that became narrower
        # has broken lines that had fitted.
        rows = sum(max(-(-drawn // width), 1) for drawn in self._drawn)
        return f"\r\x1b[{rows}A" if rows else ""
