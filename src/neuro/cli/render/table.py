"""Plain tables: a header, rows, two spaces between columns; cells may have several lines.

How a table fits into a terminal, the same for all of them:

1. Texts (descriptions, commands) go on in further lines, broken between their words.
2. Where that is not enough, the table has fewer columns: the spare ones are left out, or the next
   one of several layouts is taken, in which a name stands below its id.
3. Where nothing can be left out any more, times and states are broken between their words, and
   then names behind their hyphens, dots and slashes; within letters only where nothing else helps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from neuro.domain.printable import display_width, printable


class Line(NamedTuple):
    """A line of a cell; ``fg`` is its colour where colours are on."""

    text: str
    fg: str | None = None


Cell = tuple[Line, ...]
# Where a text may be cut: behind spaces, or else behind what joins the words of a name, and before
# the capital letter of a further word.
_WORDS = re.compile(r"\S+\s*|^\s+")
_PARTS = re.compile(r"[^./_,:@-](?:(?!(?<=[a-z])[A-Z])[^./_,:@-])*[./_,:@-]*|[./_,:@-]+")
# Narrower than this, a column would be higher than anybody reads.
_NARROWEST = 10
Style = Callable[[str, str | None], str]


class Column(NamedTuple):
    """How a column looks.

    ``shrinks``: its cells may go on in further lines; without, only where nothing else helps.
    ``spare``: is left out where the table does not fit, the highest number first; 0: never.
    """

    title: str
    align: str = "left"
    min: int = 0
    max: int | None = None
    shrinks: bool = True
    spare: int = 0


class Fitting(Protocol):
    """A table that knows whether it fits where it is shown."""

    @property
    def fits(self) -> bool: ...


F = TypeVar("F", bound=Fitting)


def first_that_fits(tables: Iterable[F]) -> F:
    """The first of the tables that fits, or else the last; they are measured already."""
    table: F | None = None
    for table in tables:
        if table.fits:
            return table
    assert table is not None
    return table


def without_spares(columns: Sequence[Column]) -> Iterator[list[int]]:
    """The numbers of the columns that are shown: of all, then of ever fewer.

    >>> [*without_spares([Column("ID"), Column("LAST", spare=1), Column("RAW", spare=2)])]
    [[0, 1, 2], [0, 1], [0]]
    """
    for limit in sorted({it.spare for it in columns} | {0}, reverse=True):
        yield [number for number, column in enumerate(columns) if column.spare <= limit]


class Table:
    """Lays out rows as they come: the widths of the first rows stay, or grow."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        width: int | None = None,
        style: Style | None = None,
        gap: str = "  ",
        indent: int = 0,
    ) -> None:
        """``width`` is what must fit; None: anything fits. ``gap`` stands between columns."""
        self._columns = columns
        self._available = None if width is None else width - indent
        self._style = style or (lambda text, _fg: text)
        self._gap = gap
        self._indent = " " * indent
        self._widths = [max(len(column.title), column.min) for column in columns]
        self._words = [0] * len(columns)  # the widest word of each column
        self._parts = [0] * len(columns)  # and the widest of what such words may be broken into
        self._squeezed = False

    @property
    def fits(self) -> bool:
        """Whether what was measured fits, with only texts broken, and those between words."""
        return not self._squeezed

    @property
    def widths(self) -> Sequence[int]:
        """How many columns of the terminal each column takes."""
        return self._widths

    def header(self) -> str:
        """The row of titles; call it after ``measure``."""
        return self._row([(Line(column.title),) for column in self._columns])[0]

    def measure(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Make the columns wide enough for these rows, within their limits."""
        for row in rows:
            for index, cell in enumerate(row):
                texts = [printable(line.text) for line in cell]
                widest = max(map(display_width, texts), default=0)
                self._words[index] = max(self._words[index], *map(longest_word, texts), 0)
                self._parts[index] = max(self._parts[index], *map(_longest_part, texts), 0)
                limit = self._columns[index].max
                wanted = widest if limit is None else min(widest, max(limit, self._words[index]))
                self._widths[index] = max(self._widths[index], wanted)
        self._shrink()

    def _excess(self) -> int:
        gaps = display_width(self._gap) * (len(self._widths) - 1)
        return sum(self._widths) + gaps - (self._available or 0)

    def _shrink(self) -> None:
        if self._available is None:
            return
        self._narrow(self._words, firm_too=False)
        if self._excess() > 0:
            self._squeezed = True
            self._narrow(self._words, firm_too=True)
            self._narrow(self._parts, firm_too=False)
            self._narrow([0] * len(self._parts), firm_too=False)

    def _narrow(self, breakable: Sequence[int], *, firm_too: bool) -> None:
        least = [
            max(len(column.title), column.min, _NARROWEST, widest)
            for column, widest in zip(self._columns, breakable, strict=True)
        ]
        for _ in range(self._excess()):
            # The widest one gives way first.
            candidates = [
                (width, index)
                for index, width in enumerate(self._widths)
                if (firm_too or self._columns[index].shrinks) and width > least[index]
            ]
            if not candidates:
                return
            self._widths[max(candidates)[1]] -= 1

    def lines(self, rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
        """The lines of rows."""
        for row in rows:
            yield from self._row(row)

    def _row(self, row: Sequence[Cell]) -> list[str]:
        wrapped = [
            [Line(piece, line.fg) for line in cell for piece in wrap(printable(line.text), width)]
            for cell, width in zip(row, self._widths, strict=True)
        ]
        # A job without a name has no empty line below its id.
        filled = (n for cell in wrapped for n, line in enumerate(cell, start=1) if line.text)
        height = max(filled, default=1)
        return [
            (self._indent + self._gap.join(self._pieces(wrapped, number))).rstrip()
            for number in range(height)
        ]

    def _pieces(self, cells: Sequence[Sequence[Line]], number: int) -> Iterator[str]:
        for cell, width, column in zip(cells, self._widths, self._columns, strict=True):
            line = cell[number] if number < len(cell) else Line("")
            space = max(width - display_width(line.text), 0)
            left = {"right": space, "center": space // 2}.get(column.align, 0)
            yield " " * left + self._style(line.text, line.fg) + " " * (space - left)


class Sheet:
    """A table together with all of its rows, measured."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell]],
        width: int | None,
        style: Style | None = None,
    ) -> None:
        """``width`` is what must fit; None: anything fits."""
        self._table = Table(columns, width=width, style=style)
        self._rows = rows
        self._table.measure(rows)

    @property
    def fits(self) -> bool:
        """See ``Table.fits``."""
        return self._table.fits

    def header(self) -> str:
        """The row of titles."""
        return self._table.header()

    def lines(self) -> Iterator[str]:
        """The lines of all rows."""
        return self._table.lines(self._rows)


def wrap(text: str, width: int) -> list[str]:
    """``text`` in pieces of at most ``width`` columns.

    It is cut at spaces; a word that is too wide behind one of its hyphens, dots or slashes, or
    before a capital letter within it; within letters only where nothing else is left.

    >>> wrap("two words and job-name/path", 9)
    ['two words', 'and job-', 'name/path']
    """
    if display_width(text) <= width or width <= 0:
        return [text]
    pieces, piece = [], ""
    for word in _WORDS.findall(text):
        for part in _PARTS.findall(word) if display_width(word.rstrip()) > width else [word]:
            if piece and display_width(piece + part.rstrip()) > width:
                pieces.append(piece)
                piece = ""
            for letter in _letters(part):
                if not letter.isspace() and display_width(piece + letter) > width:
                    pieces.append(piece)
                    piece = ""
                piece += letter
    stripped = [it.rstrip() for it in (*pieces, piece)]
    return [it for it in stripped if it] or [""]


def _letters(text: str) -> Iterable[str]:
    """What stands on a screen as one: a letter with its accents, a picture of several parts."""
    if text.isascii():
        return text
    from wcwidth import iter_graphemes

    return iter_graphemes(text)


def _longest_part(text: str) -> int:
    parts = (part.strip() for word in text.split() for part in _PARTS.findall(word))
    return max(map(display_width, parts), default=0)


def longest_word(text: str) -> int:
    """How many columns the widest word of ``text`` takes."""
    return max(map(display_width, text.split()), default=0)
