from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from neuro.cli.job.ls import Printer
from neuro.cli.job.top import Screen, Use
from neuro.cli.output import Output
from neuro.cli.render.columns import parse_columns
from neuro.cli.render.job_row import PS_COLUMNS, PS_DEFAULT, PS_NARROWER, View
from neuro.cli.render.table import Cell, Column, Line, Table, without_spares, wrap
from neuro.domain.jobs import JobStatus, UsageSample
from neuro.domain.printable import display_width
from tests.cli.jobs import CREATED, JOB_ID, make_job
from tests.cli.platform import Home


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


@pytest.mark.parametrize(
    ("text", "width", "pieces"),
    [
        ("learning-rate of train", 14, ["learning-rate", "of train"]),
        ("to learning-rate", 14, ["to", "learning-rate"]),
        ("sweep-lr-0.1", 9, ["sweep-lr-", "0.1"]),
        ("a/folder/below", 8, ["a/", "folder/", "below"]),
        ("UserRequested", 10, ["User", "Requested"]),
        ("OOMKilled", 9, ["OOMKilled"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
    ],
)
def test_a_word_is_broken_only_where_it_is_joined(text: str, width: int, pieces: list[str]) -> None:
    assert wrap(text, width) == pieces


def test_a_column_is_as_wide_as_its_widest_word() -> None:
    columns = [Column("NAME", max=10), Column("TEXT")]
    lines = laid_out(columns, [cells("evaluation-of-everything", "word " * 8)], width=40)

    assert lines[1].startswith("evaluation-of-everything  word")


def jobs_in(width: int, **more: Any) -> list[str]:
    job = structs.replace(make_job(status=JobStatus.RUNNING, owner="anna"), **more)
    out = Output(color=False)
    formats = [parse_columns(text, PS_COLUMNS) for text in (PS_DEFAULT, *PS_NARROWER)]
    with redirect_stdout(StringIO()) as shown:
        printer = Printer(out, formats[0], View("anna", CREATED), width, formats[1:])
        printer.add(job)
        printer.flush()
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_list_of_jobs_fits_the_terminal_and_breaks_no_word(width: int) -> None:
    name, text = "training-of-the-larger-model-7", "Looks for the learning rate"
    lines = jobs_in(width, name=name, description=text)

    assert max(map(len, lines)) <= width
    assert JOB_ID in lines[1]
    assert "now" in lines[1]
    assert any(name in line for line in lines)


def test_times_stay_in_one_line_and_are_broken_last() -> None:
    columns = [Column("WHEN", shrinks=False), Column("TEXT")]
    row = [cells("16 seconds ago", "a text of some words")]

    assert laid_out(columns, row, width=28)[1].startswith("16 seconds ago  ")
    assert laid_out(columns, row, width=22)[1].startswith("16 seconds  ")


def test_a_table_leaves_out_its_spare_columns() -> None:
    columns = [Column("ID"), Column("RAW", spare=2), Column("LAST", spare=1)]

    assert [*without_spares(columns)] == [[0, 1, 2], [0, 2], [0]]


def used_jobs(names: Iterable[str], *, gpu: int | None = None) -> dict[str, Use]:
    sample = UsageSample(
        cpu=0.123, memory=1024.5, memory_bytes=0, timestamp=0.0, gpu_duty_cycle=gpu
    )
    since = {"started_at": datetime.now(UTC) - timedelta(minutes=59)}
    return {
        name: Use(make_job(status=JobStatus.RUNNING, history=since, name=name), sample)
        for name in names
    }


def drawn(terminal_of: pytest.MonkeyPatch, size: tuple[int, int], *screens: dict[str, Use]) -> str:
    """What `neuro top` writes to a terminal of this size."""
    terminal_of.setenv("COLUMNS", str(size[0]))
    terminal_of.setenv("LINES", str(size[1]))
    with redirect_stdout(StringIO()) as shown:
        shown.isatty = lambda: True  # type: ignore[method-assign]
        out = Output(color=False)
        out.is_terminal = True
        screen = Screen(out, None, "cpu")
        for uses in screens:
            screen.draw(uses, "anna")
    return shown.getvalue()


@pytest.mark.parametrize("gpu", [None, 50])
@pytest.mark.parametrize("width", [80, 100, 120])
def test_top_redraws_as_many_rows_as_it_drew(
    monkeypatch: pytest.MonkeyPatch, width: int, gpu: int | None
) -> None:
    uses = used_jobs(["train", "my-long-training-job-name"], gpu=gpu)

    first, up, second = re.split(r"\r\x1b\[(\d+)A", drawn(monkeypatch, (width, 24), uses, uses))

    lines = first.replace("\x1b[K", "").replace("\x1b[J", "").splitlines()
    assert max(map(len, lines)) <= width
    assert int(up) == len(lines)
    assert ("59 minutes ago" in first) is (gpu is None)
    assert first == second


def test_top_draws_no_more_than_a_screen_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    uses = used_jobs(f"job-{number}" for number in range(50))

    shown = drawn(monkeypatch, (100, 10), uses)

    assert shown.count("\n") == 9
    assert "… and 43 more lines" in shown


def test_top_counts_the_rows_of_lines_that_are_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    uses = used_jobs(f"job-{number}" for number in range(50))

    first, up, _ = re.split(r"\r\x1b\[(\d+)A", drawn(monkeypatch, (50, 12), uses, uses))

    lines = first.replace("\x1b[K", "").replace("\x1b[J", "").splitlines()
    assert int(up) == sum(-(-len(line) // 50) for line in lines) <= 11


def test_a_job_without_a_name_takes_no_empty_line() -> None:
    columns = [Column("ID/NAME"), Column("X")]

    assert laid_out(columns, [cells("1/a", "x"), cells("2/", "y"), cells("3/c", "z")])[1:] == [
        "1        x", "a", "2        y", "3        z", "c",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_of_tokens_fits_the_terminal(person: Home, width: int) -> None:
    label = f"job {JOB_ID}"
    person.ok("config", "token", "create", "--label", label)

    with person.terminal("--color", "no", "config", "token", "ls", columns=width) as it:
        assert it.end() == 0
        lines = it.shown.splitlines()

    assert max(map(len, lines)) <= width
    assert any(line.endswith("valid") for line in lines)
    assert any(label in line for line in lines)


def test_a_wide_terminal_has_all_columns() -> None:
    assert jobs_in(200)[0].split()[-2:] == ["CLUSTER", "DESCRIPTION"]
    assert jobs_in(80)[0].split()[:3] == ["ID", "NAME", "STATUS"]


def test_what_comes_from_elsewhere_stays_in_its_row() -> None:
    lines = jobs_in(200, description="line 1\nline 2 \x1b[2J\u202egone")

    assert len(lines) == 2
    assert r"line 1\nline 2 \x1b[2J\u202egone" in lines[1]
