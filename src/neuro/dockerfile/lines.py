"""From a file's text to logical lines: directives, comments, continuation lines, here-documents.

A logical line knows for each of its characters where it stands in the file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from neuro.domain.problems import Position, Problem, Source

# What Go calls space: Python's own str.isspace knows four separators more.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
DEFAULT_ESCAPE = "\\"
_DIRECTIVE = re.compile(r"#[^\S\n]*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
# A remote program that reads Dockerfiles of this very syntax.
_FRONTEND = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?::1(?:\.\d+)*(?:-labs)?|:latest|:labs|:stable)?"
    r"(?:@sha256:[0-9a-f]{64})?"
)
_CONTINUED = {
    escape: re.compile(rf"([^{re.escape(escape)}]|^){re.escape(escape)}[ \t]*\Z")
    for escape in ("\\", "`")
}


class Span(NamedTuple):
    """A piece of a logical line and where in it the piece begins."""

    text: str
    start: int


class Line(msgspec.Struct, frozen=True):
    """An instruction's whole text, put together from the lines of the file that hold it."""

    text: str
    source: Source
    starts: tuple[int, ...]
    """Where in ``text`` each piece begins, and ``origins``: where in the file."""
    origins: tuple[int, ...]

    def at(self, offset: int) -> Position:
        """The place in the file of a character of the text."""
        piece = bisect_right(self.starts, offset) - 1
        return self.source.position(self.origins[piece] + offset - self.starts[piece])

    def tail(self, offset: int) -> Line:
        """What begins at an offset, as a line of its own."""
        piece = bisect_right(self.starts, offset) - 1
        first = self.origins[piece] + offset - self.starts[piece]
        later = tuple(start - offset for start in self.starts[piece + 1 :])
        return Line(
            self.text[offset:], self.source, (0, *later), (first, *self.origins[piece + 1 :])
        )


class Lines:
    """The logical lines of a text, one after the other; what is wrong goes to ``problems``."""

    def __init__(self, source: Source, problems: list[Problem], notes: list[Problem]) -> None:
        self.escape = DEFAULT_ESCAPE
        self._source = source
        self._problems = problems
        self._notes = notes
        self._next = 0
        self._directives: set[str] | None = set()

    def __iter__(self) -> Iterator[Line]:
        while (raw := self._physical()) is not None:
            start, text = raw
            stripped = text.lstrip(SPACES)
            start += len(text) - len(stripped)
            self._directive(stripped, start)
            if not stripped or stripped.startswith("#"):
                continue
            yield self._logical(start, stripped)

    def heredoc(self, name: str, *, strip_tabs: bool) -> str | None:
        """The raw lines that follow, down to the one that is NAME. None: there is no such line."""
        begin = self._next
        while (raw := self._physical()) is not None:
            start, text = raw
            if (text.lstrip("\t") if strip_tabs else text) == name:
                return self._source.text[begin:start]
        return None

    def _physical(self) -> tuple[int, str] | None:
        """The next line of the file: where it begins, and its text without its end."""
        text = self._source.text
        start = self._next
        if start >= len(text):
            return None
        end = text.find("\n", start)
        self._next = len(text) if end < 0 else end + 1
        return start, text[start : self._next].rstrip("\r\n")

    def _logical(self, start: int, text: str) -> Line:
        starts, origins, pieces, length = [0], [start], list[str](), 0
        continued = _CONTINUED[self.escape]
        while found := continued.search(text):
            pieces.append(text[: found.end(1)])
            length += found.end(1)
            while (raw := self._physical()) is not None:
                origin, text = raw
                if text.strip(SPACES) and not text.lstrip(SPACES).startswith("#"):
                    break
                if not text.strip(SPACES):
                    self._notes.append(
                        Problem(
                            "An empty line between lines that belong together is ignored.",
                            self._source.position(origin),
                            "Remove it, or begin it with #.",
                        )
                    )
            else:
                text = ""
                break
            starts.append(length)
            origins.append(origin)
        pieces.append(text)
        return Line("".join(pieces), self._source, tuple(starts), tuple(origins))

    def _directive(self, text: str, start: int) -> None:
        """Obey ``# name=value`` at the top of the file. The first other line ends them."""
        if self._directives is None:
            return
        found = _DIRECTIVE.fullmatch(text)
        name = found[1].lower() if found else ""
        if not found or name not in _DIRECTIVES:
            self._directives = None
            return
        at = self._source.position(start + found.start(2))
        if name in self._directives:
            self._problems.append(
                Problem(
                    f"The directive '{name}' is given twice.",
                    self._source.position(start),
                    "Keep one of the two lines.",
                )
            )
        self._directives.add(name)
        value = found[2]
        if name == "escape":
            if value in _CONTINUED:
                self.escape = value
            else:
                self._problems.append(
                    Problem(f"'{value}' is not an escape character.", at, "Write \\ or `.")
                )
        elif name == "syntax" and not _FRONTEND.fullmatch(value.split(" ")[0]):
            self._problems.append(
                Problem(
                    f"The syntax '{value}' is not supported: it is a program from elsewhere.",
                    at,
                    "Write 'docker/dockerfile:1', or remove the line.",
                )
            )
