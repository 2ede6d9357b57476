"""What others wrote obeys no terminal: in tables, in fields, in messages, in problems of files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from neuro.cli.output import Output
from neuro.cli.render.columns import parse_columns
from neuro.cli.render.job_row import PS_COLUMNS, View, job_row
from neuro.cli.render.job_status import status_rows
from neuro.cli.render.json_text import line
from neuro.cli.render.table import Column, Line, Table
from neuro.domain.jobs import Job, JobStatus
from neuro.domain.printable import harmless, printable
from neuro.domain.problems import Problem, Source
from neuro.flow.cli.thin_table import Layout, Row, firm, thin_table
from tests.cli.jobs import make_job

# Clears the screen, sets the title, moves to the line above, turns writing around; C1's own CSI.
TRICKS = "a\x1b[2Jb\x1b]0;t\x07c\rd\x08e\u202ef\x9b2Jg"
SEEN = "\\x1b[2J"
BAD = ("\x1b", "\x07", "\r", "\x08", "\u202e", "\x9b")
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def assert_clean(text: str) -> None:
    assert not [one for one in BAD if one in text], text


def tricky(**changes: object) -> Job:
    made = make_job(status=JobStatus.RUNNING, reason=TRICKS, description=TRICKS)
    container = msgspec.structs.replace(
        made.container, image=TRICKS, command=TRICKS, env={TRICKS: TRICKS}
    )
    changes = {"container": container, "description": TRICKS, "tags": [TRICKS], **changes}
    return msgspec.structs.replace(made, **changes)


def test_every_column_of_ps_writes_control_characters_out() -> None:
    columns = parse_columns(" ".join(PS_COLUMNS), PS_COLUMNS)
    rows = [job_row(tricky(), columns, View("alice", NOW))]
    table = Table([column.look for column in columns], width=2000)
    table.measure(rows)

    text = "\n".join(table.lines(rows))

    assert_clean(text)
    assert text.count("[2J") >= 4


def test_every_row_of_status_does() -> None:
    rows = status_rows(tricky(), user="alice")

    text = "\n".join(row.text(lambda value, _fg: value) for row in rows)

    assert_clean(text)
    assert SEEN in text


def test_a_value_of_several_lines_passes_for_no_other_row() -> None:
    rows = status_rows(tricky(description="mine\nOwner: root"), user="alice")

    lines = "\n".join(row.text(lambda value, _fg: value) for row in rows).split("\n")

    assert "Owner: root" not in lines
    assert "        Owner: root" in lines


def test_columns_stay_below_each_other() -> None:
    rows = [[(Line("a\x1b[31m"),), (Line("x"),)], [(Line("b\nc"),), (Line("y"),)]]
    table = Table([Column("ONE"), Column("TWO")])
    table.measure(rows)

    assert [*table.lines(rows)] == ["a\\x1b[31m  x", "b\\nc       y"]


def test_thin_tables_of_flows_do() -> None:
    layout = Layout((Column("JOB"), firm("STATUS")), [Row((TRICKS, "two\nlines"))])

    lines = thin_table([layout], lambda text, _fg: text, 40)

    assert_clean("".join(lines))
    assert any("lines" in line for line in lines)


def test_a_problem_of_a_flow_file_does() -> None:
    source = Source(f"x{TRICKS}.yml", f"kind: {TRICKS}\n")
    problem = Problem(f"Unknown key '{TRICKS}'", source.position(0), f"Write {TRICKS}")

    assert_clean(problem.render())
    assert SEEN in problem.render()


@pytest.mark.parametrize("say", ["print", "say", "note"])
def test_whatever_is_printed_keeps_lines_and_the_programs_own_colours_only(
    capsys: pytest.CaptureFixture[str], say: str
) -> None:
    out = Output(color=True)

    getattr(out, say)(f"one\n\ttwo {out.style('red', fg='red', bold=True)} {TRICKS}\x1b[8m")

    read = capsys.readouterr()
    text = read.out + read.err
    assert "one\n\ttwo \x1b[31m\x1b[1mred\x1b[0m " in text
    assert text.endswith("\\x1b[8m\n")
    for color in ("\x1b[31m", "\x1b[1m", "\x1b[0m"):
        text = text.replace(color, "")
    assert_clean(text)


@pytest.mark.parametrize("say", ["print", "say", "note", "info", "warning", "error"])
def test_without_colours_nothing_is_coloured(capsys: pytest.CaptureFixture[str], say: str) -> None:
    getattr(Output(color=False, verbose=1), say)(f"one\n\ttwo \x1b[31mred {TRICKS}")

    read = capsys.readouterr()
    assert_clean(read.out + read.err)
    assert "one\n\ttwo \\x1b[31mred a\\x1b[2J" in read.out + read.err


@pytest.mark.parametrize("say", ["info", "warning", "error"])
def test_a_message_has_no_colours_of_others(capsys: pytest.CaptureFixture[str], say: str) -> None:
    getattr(Output(color=True, verbose=1), say)("l\x1b[31m is left out")

    assert "l\\x1b[31m is left out\n" in capsys.readouterr().err


def test_a_styled_text_has_the_colour_asked_for_and_no_other() -> None:
    assert Output(color=True).style("a\x1b[8mb", fg="red") == "\x1b[31ma\\x1b[8mb\x1b[0m"


def test_json_escapes_what_a_terminal_obeys_in_the_way_of_json() -> None:
    text = line({"name": TRICKS + "\x7f"})

    assert_clean(text)
    assert json.loads(text) == {"name": TRICKS + "\x7f"}


def test_what_is_fine_stays_as_it_is() -> None:
    text = "Привет, 世界 – ✓ a\u00a0b"

    assert printable(text) == harmless(text) == text
    assert printable("a\tb", keep="\t") == "a\tb"
