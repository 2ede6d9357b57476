"""Tables with thin lines between the columns and below the titles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from neuro.cli.render.table import wrap
from neuro.domain.printable import display_width, printable

NEVER = "N/A"
Paint = Callable[[str, str | None], str]
# Narrower than this, cells would be broken too often to be read.
_NARROWEST = 9


class Row(NamedTuple):
    """The cells of a row, which may have several lines, and the colour of the one that has one."""

    cells: tuple[str, ...]
    fg: str | None = None


def _harmless(rows: Sequence[Row]) -> list[Row]:
    return [Row(tuple(printable(cell, keep="\n") for cell in row.cells), row.fg) for row in rows]


class ThinTable:
    """Lays rows out; ``colored`` is the column that has their colour."""

    def __init__(
        self,
        titles: Sequence[str],
        paint: Paint,
        *,
        colored: str = "STATUS",
        widths: Sequence[int] | None = None,
    ) -> None:
        """``widths`` are the least that columns have where there is room; 0: as wide as needed."""
        self._titles = titles
        self._paint = paint
        self._colored = colored
        least = widths or [0] * len(titles)
        self._widths = [max(len(title), width) for title, width in zip(titles, least, strict=True)]

    def whole(self, rows: Sequence[Row]) -> list[str]:
        """All lines of a table that has these rows."""
        rows = _harmless(rows)
        self._measure(rows)
        return self._all(rows)

    def fitting(
        self,
        rows: Sequence[Row],
        available: int | None,
        *,
        spare: str | None = None,
        firm: Sequence[str] = (),
    ) -> list[str]:
        """All lines of a table that is ``available`` columns wide, if it can be; None: any width.

        Where there is too little room, it has no column ``spare``; where that is not enough, cells
        are broken into several lines, except those of the ``firm`` columns.
        """
        rows = _harmless(rows)
        self._measure(rows)
        if available is None or self.width <= available:
            return self._all(rows)
        table, rows = self._without(spare, rows)
        table._measure(rows)
        table._shrink(available, firm)
        return table._all(rows)

    @property
    def width(self) -> int:
        """How many columns of a terminal the rows that it was given take."""
        return sum(width + 3 for width in self._widths) + 1

    def _measure(self, rows: Iterable[Row]) -> None:
        for row in rows:
            for number, cell in enumerate(row.cells):
                widest = max(map(display_width, cell.split("\n")))
                self._widths[number] = max(self._widths[number], widest)

    def _without(self, spare: str | None, rows: Sequence[Row]) -> tuple[Self, Sequence[Row]]:
        kept = [number for number, title in enumerate(self._titles) if title != spare]
        titles = [self._titles[number] for number in kept]
        fewer = [Row(tuple(row.cells[number] for number in kept), row.fg) for row in rows]
        return type(self)(titles, self._paint, colored=self._colored), fewer

    def _shrink(self, available: int, firm: Sequence[str]) -> None:
        while self.width > available:
            candidates = [
                (self._widths[number], -number)
                for number, title in enumerate(self._titles)
                if title not in firm and self._widths[number] > max(len(title), _NARROWEST)
            ]
            if not candidates:
                return
            self._widths[-max(candidates)[1]] -= 1

    def _all(self, rows: Iterable[Row]) -> list[str]:
        rule = "┼".join("─" * (width + 2) for width in self._widths)
        lines = ["", *self._lines(Row(tuple(self._titles))), f"╶{rule}╴"]
        for row in rows:
            lines += self._lines(row)
        return [*lines, f" {'╵'.join(' ' * (width + 2) for width in self._widths)}".rstrip()]

    def _lines(self, row: Row) -> Iterator[str]:
        cells = [
            [piece for line in cell.split("\n") for piece in wrap(line, width)]
            for cell, width in zip(row.cells, self._widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            pieces = (cell[number] if number < len(cell) else "" for cell in cells)
            yield self._line(pieces, row.fg)

    def _line(self, pieces: Iterable[str], fg: str | None) -> str:
        padded = [
            self._paint(piece, fg if piece and title == self._colored else None)
            + " " * (width - display_width(piece))
            for piece, width, title in zip(pieces, self._widths, self._titles, strict=True)
        ]
        return f"  {' │ '.join(padded)}".rstrip()
