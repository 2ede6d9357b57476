"""Tables with thin lines between the columns and below the titles.

They fit into a terminal as all tables do: see neuro.cli.render.table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from neuro.cli.render.table import Cell, Column, Line, Table, first_that_fits, without_spares

NEVER = "N/A"
Paint = Callable[[str, str | None], str]
# How much wider the line below the titles is than the rows.
_RIM = 2


class Row(NamedTuple):
    """The cells of a row, which may have several lines, and the colour of the one that has one."""

    cells: tuple[str, ...]
    fg: str | None = None


class Layout(NamedTuple):
    """One way to show something: its columns, and rows with a cell for each."""

    columns: Sequence[Column]
    rows: Sequence[Row]


def firm(title: str, *, least: int = 0) -> Column:
    """A column of ids, states, times or numbers, whose cells stay in one line."""
    return Column(title, min=least, shrinks=False)


class ThinTable:
    """A layout that is measured; ``colored`` is the column that has the rows' colours."""

    def __init__(
        self, layout: Layout, paint: Paint, available: int | None = None, *, colored: str = "STATUS"
    ) -> None:
        """``available`` is how many columns of a terminal there are; None: any number."""
        self._titles = [column.title for column in layout.columns]
        self._colored = colored
        width = None if available is None else available - _RIM
        self._table = Table(layout.columns, width=width, style=paint, gap=" │ ", indent=2)
        self._rows = [self._cells(row) for row in layout.rows]
        self._table.measure(self._rows)

    @property
    def fits(self) -> bool:
        """Whether it fits without breaking what should stay whole."""
        return self._table.fits

    def _cells(self, row: Row) -> list[Cell]:
        return [
            tuple(Line(line, row.fg if title == self._colored else None) for line in text)
            for title, text in zip(
                self._titles, (cell.split("\n") for cell in row.cells), strict=True
            )
        ]

    def lines(self) -> Iterator[str]:
        """All lines, the empty one above included."""
        widths = [width + 2 for width in self._table.widths]
        yield ""
        yield self._table.header()
        yield f"╶{'┼'.join('─' * width for width in widths)}╴"
        yield from self._table.lines(self._rows)
        yield f" {'╵'.join(' ' * width for width in widths)}".rstrip()


def thin_table(
    layouts: Sequence[Layout], paint: Paint, available: int | None, *, colored: str = "STATUS"
) -> list[str]:
    """The lines of the first layout that fits, without its spare columns if need be."""
    tables = (
        ThinTable(fewer, paint, available, colored=colored)
        for layout in layouts
        for fewer in _ever_fewer(layout)
    )
    return [*first_that_fits(tables).lines()]


def _ever_fewer(layout: Layout) -> Iterator[Layout]:
    for kept in without_spares(layout.columns):
        rows = [Row(tuple(row.cells[it] for it in kept), row.fg) for row in layout.rows]
        yield Layout([layout.columns[it] for it in kept], rows)
