from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neuro.cli.render.table import Cell, Column, Line, Table, display_width, wrap


def cells(*texts: str) -> list[Cell]:
    return [tuple(Line(line) for line in text.split("/")) for text in texts]


def laid_out(columns: list[Column], rows: list[list[Cell]], width: int | None = None) -> list[str]:
    table = Table(columns, width=width)
    table.measure(rows)
    return [table.header(), *table.lines(rows)]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = laid_out([Column("ID"), Column("NAME")], [cells("1", "first"), cells("22", "2nd")])

    assert lines == ["ID  NAME", "1   first", "22  2nd"]


def test_cells_are_aligned_as_the_column_says() -> None:
    columns = [Column("RIGHT", align="right"), Column("CENTER", align="center")]

    assert laid_out(columns, [cells("1", "No")]) == ["RIGHT  CENTER", "    1    No"]


def test_stacked_values_stand_below_each_other() -> None:
    lines = laid_out([Column("ID"), Column("X/Y")], [cells("1", "a/b"), cells("2", "c")])

    assert lines == ["ID  X/Y", "1   a", "    b", "2   c"]


def test_a_cell_beyond_its_limit_goes_on_in_the_next_line() -> None:
    lines = laid_out([Column("T", max=10)], [cells("one two three four")])

    assert lines == ["T", "one two", "three four"]


def test_a_table_fits_into_the_terminal_and_keeps_what_must_not_shrink() -> None:
    columns = [Column("ID", shrinks=False), Column("COMMAND")]
    lines = laid_out(columns, [cells("x" * 20, "word " * 20)], width=50)

    assert max(len(line) for line in lines) <= 50
    assert lines[1].startswith("x" * 20)


def test_letters_of_several_code_points_take_what_a_terminal_gives_them() -> None:
    assert [display_width(text) for text in ("👨‍👩‍👧", "❤️", "é", "한")] == [2, 2, 1, 2]
    assert wrap("👨‍👩‍👧👨‍👩‍👧", 3) == ["👨‍👩‍👧", "👨‍👩‍👧"]


def test_a_wide_letter_takes_two_columns() -> None:
    lines = laid_out([Column("N"), Column("M")], [cells("日本", "a"), cells("ab", "b")])

    assert lines[1:] == ["日本  a", "ab    b"]


@given(st.text(st.characters(exclude_categories=("C", "Z", "M"))), st.integers(2, 30))
def test_wrapping_loses_nothing_and_keeps_the_width(text: str, width: int) -> None:
    pieces = wrap(text, width)

    assert "".join(pieces) == text
    assert all(display_width(piece) <= width for piece in pieces)
