"""A flow file's text, and the places in it that problems point to."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

# What editors count as the end of a line. YAML 1.1 has three more; columns are the same with them.
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its name as shown to people, and its text."""

    name: str
    text: str = field(repr=False)
    _starts: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def _line_starts(self) -> list[int]:
        if not self._starts:
            self._starts.append(0)
            self._starts.extend(end.end() for end in _LINE_END.finditer(self.text))
        return self._starts

    def position(self, index: int) -> "Position":
        """The line and column of the character at an index of the text."""
        starts = self._line_starts()
        line = bisect_right(starts, index)
        return Position(self, line, index - starts[line - 1] + 1)

    def line(self, number: int) -> str:
        """A line by its number, from 1, without its end. Empty where there is no such line."""
        starts = self._line_starts()
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")


class Position(NamedTuple):
    """A place in a source: line and column count from 1, columns in characters."""

    source: Source
    line: int
    column: int
