"""Tables with thin lines between the columns and below the titles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from neuro.cli.render.table import display_width

NEVER = "N/A"
Paint = Callable[[str, str | None], str]


class Row(NamedTuple):
    """The cells of a row, and the colour of the one that has one."""

    cells: tuple[str, ...]
    fg: str | None = None


class ThinTable:
    """Lays rows out; ``colored`` is the column that has their colour.

    The first rows that it is given decide the widths: those who list much need not wait.
    """

    def __init__(
        self,
        titles: Sequence[str],
        paint: Paint,
        *,
        colored: str = "STATUS",
        widths: Sequence[int] | None = None,
    ) -> None:
        """``widths`` are the least that columns have; 0 for as wide as needed."""
        self._titles = titles
        self._paint = paint
        self._colored = titles.index(colored) if colored in titles else -1
        least = widths or [0] * len(titles)
        self._widths = [max(len(title), width) for title, width in zip(titles, least, strict=True)]

    def measure(self, rows: Iterable[Row]) -> None:
        """Make the columns as wide as these rows."""
        for row in rows:
            for number, cell in enumerate(row.cells):
                self._widths[number] = max(self._widths[number], display_width(cell))

    @property
    def width(self) -> int:
        """How many columns of a terminal it takes."""
        return sum(width + 3 for width in self._widths) + 1

    def whole(self, rows: Sequence[Row]) -> list[str]:
        """All lines of a table that has these rows."""
        self.measure(rows)
        return [*self.head(), *self.lines(rows), self.foot()]

    def head(self) -> list[str]:
        """The lines above the rows."""
        rule = "┼".join("─" * (width + 2) for width in self._widths)
        return ["", self._line(Row(tuple(self._titles))), f"╶{rule}╴"]

    def lines(self, rows: Iterable[Row]) -> Iterator[str]:
        """The lines of rows."""
        return map(self._line, rows)

    def foot(self) -> str:
        """The line below the rows."""
        return f" {'╵'.join(' ' * (width + 2) for width in self._widths)}".rstrip()

    def _line(self, row: Row) -> str:
        padded = [
            self._paint(cell, row.fg if number == self._colored else None)
            + " " * (width - display_width(cell))
            for number, (cell, width) in enumerate(zip(row.cells, self._widths, strict=True))
        ]
        return f"  {' │ '.join(padded)}".rstrip()
