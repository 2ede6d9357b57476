"""Plain tables: a header, rows, two spaces between columns; cells may have several lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from neuro.cli.render.printable import printable


class Line(NamedTuple):
    """A line of a cell; ``fg`` is its colour where colours are on."""

    text: str
    fg: str | None = None


Cell = tuple[Line, ...]
Style = Callable[[str, str | None], str]


class Column(NamedTuple):
    """How a column looks. ``shrinks``: may become narrower than its widest cell to fit."""

    title: str
    align: str = "left"
    min: int = 0
    max: int | None = None
    shrinks: bool = True


class Table:
    """Lays out rows as they come: the widths of the first rows stay, or grow."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        width: int | None = None,
        style: Style | None = None,
        gap: int = 2,
        indent: int = 0,
    ) -> None:
        """``width`` is what must fit; None: anything fits."""
        self._columns = columns
        self._available = None if width is None else width - indent
        self._style = style or (lambda text, _fg: text)
        self._gap = " " * gap
        self._indent = " " * indent
        self._widths = [max(len(column.title), column.min) for column in columns]

    def header(self) -> str:
        """The row of titles; call it after ``measure``."""
        return self._row([(Line(column.title),) for column in self._columns])[0]

    def measure(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Make the columns wide enough for these rows, within their limits."""
        for row in rows:
            for index, cell in enumerate(row):
                widest = max((display_width(printable(line.text)) for line in cell), default=0)
                limit = self._columns[index].max
                wanted = widest if limit is None else min(widest, limit)
                self._widths[index] = max(self._widths[index], wanted)
        self._shrink()

    def _shrink(self) -> None:
        if self._available is None:
            return
        excess = sum(self._widths) + len(self._gap) * (len(self._widths) - 1) - self._available
        while excess > 0:
            # The widest one gives way first, and none below what its title needs.
            candidates = [
                (width, index)
                for index, width in enumerate(self._widths)
                if self._columns[index].shrinks
                and width > max(len(self._columns[index].title), self._columns[index].min, 6)
            ]
            if not candidates:
                return
            self._widths[max(candidates)[1]] -= 1
            excess -= 1

    def lines(self, rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
        """The lines of rows."""
        for row in rows:
            yield from self._row(row)

    def _row(self, row: Sequence[Cell]) -> list[str]:
        wrapped = [
            [Line(piece, line.fg) for line in cell for piece in wrap(printable(line.text), width)]
            for cell, width in zip(row, self._widths, strict=True)
        ]
        height = max((len(cell) for cell in wrapped), default=1)
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


def wrap(text: str, width: int) -> list[str]:
    """``text`` in pieces of at most ``width`` columns, cut at spaces where there are any."""
    if display_width(text) <= width or width <= 0:
        return [text]
    if text.isascii():
        import textwrap

        return textwrap.wrap(text, width) or [""]
    from wcwidth import iter_graphemes

    pieces, piece, used = [], "", 0
    for letter in iter_graphemes(text):
        size = display_width(letter)
        if used + size > width:
            pieces.append(piece)
            piece, used = "", 0
        piece, used = piece + letter, used + size
    return [*pieces, piece]


def display_width(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    # Loaded for the names that need it only: joined letters and emoji take what tables say.
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)
