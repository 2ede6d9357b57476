"""Problems with places: a file's text, the places in it, and what is wrong in one of them."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from neuro.domain.printable import printable

# Of what stands in several lines.
_KEPT = "\n\t"
_BOLD_RED = "\x1b[1;31m"
_CYAN = "\x1b[36m"
_RESET = "\x1b[0m"

# Longer lines are cut around the place: a terminal would wrap them and lose the caret.
_LONGEST_LINE = 160

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

    def index(self, at: "Position") -> int:
        """The index in the text of a place."""
        return self._line_starts()[at.line - 1] + at.column - 1

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


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in one sentence, with the place and a hint where there are any."""

    message: str
    at: Position | None
    hint: str | None = None

    def render(self, *, color: bool = False) -> str:
        """The message, the place in one line, the source's line with a caret, and the hint."""
        red, cyan, reset = (_BOLD_RED, _CYAN, _RESET) if color else ("", "", "")
        lines = [f"{red}{printable(self.message, keep=_KEPT)}{reset}"]
        if self.at is not None:
            lines.append(
                f'  in "{printable(self.at.source.name)}", line {self.at.line},'
                f" column {self.at.column}"
            )
            excerpt = _excerpt(self.at)
            if excerpt is not None:
                text, caret = excerpt
                lines += [f"    {text}", f"    {red}{caret}{reset}"]
        if self.hint is not None:
            lines.append(f"  {cyan}{printable(self.hint, keep=_KEPT)}{reset}")
        return "\n".join(lines)


def _excerpt(at: Position) -> tuple[str, str] | None:
    line = at.source.line(at.line)
    if not line.strip():
        return None
    start = 0
    if len(line) > _LONGEST_LINE:
        start = max(0, min(at.column - 1 - _LONGEST_LINE // 2, len(line) - _LONGEST_LINE))
    shown = line[start : start + _LONGEST_LINE]
    before = shown[: max(0, at.column - 1 - start)]
    # Tabs stay tabs, so that the caret stands below its character at every tab width.
    blank = "".join("\t" if character == "\t" else " " for character in before)
    # One for one, so that the caret stays where it belongs.
    return "".join(
        char if char.isprintable() or char == "\t" else "\ufffd" for char in shown
    ), blank + "^"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint such as "Did you mean 'image'?", when a known word is close to this one."""
    found = closest(word, known)
    return f"Did you mean '{found}'?" if found is not None else None


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is close to this one, if any is."""
    # Imported here: only a mistake needs it, and every start would pay.
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
