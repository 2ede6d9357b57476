from __future__ import annotations

import pytest

from neuro.cli.failures import Failure
from neuro.cli.job.top import TOP_COLUMNS, TOP_DEFAULT
from neuro.cli.render.columns import parse_columns
from neuro.cli.render.job_row import PS_COLUMNS, PS_DEFAULT


def titles(text: str) -> list[str]:
    return [column.look.title for column in parse_columns(text, PS_COLUMNS)]


def test_the_default_is_the_table_of_the_specification() -> None:
    assert titles(PS_DEFAULT) == [
        "ID",
        "NAME",
        "STATUS",
        "WHEN",
        "IMAGE",
        "OWNER",
        "CLUSTER",
        "DESCRIPTION",
    ]


def test_the_default_of_top_is_understood() -> None:
    assert len(parse_columns(TOP_DEFAULT, TOP_COLUMNS)) == 7


@pytest.mark.parametrize("text", ["id name", "id,name", "id, name ,", "ID Name", "{id} {name}"])
def test_columns_are_separated_by_spaces_or_commas_in_any_case(text: str) -> None:
    assert titles(text) == ["ID", "NAME"]


def test_a_slash_stacks_columns() -> None:
    (column,) = parse_columns("name/status", PS_COLUMNS)

    assert column.ids == ("name", "status")
    assert column.look.title == "NAME/STATUS"


def test_a_clear_abbreviation_is_enough() -> None:
    assert titles("desc life pre") == ["DESCRIPTION", "LIFE-SPAN", "PRESET"]


def test_properties_come_in_any_order_and_the_title_last() -> None:
    (column,) = parse_columns("{image;max=30;align=right;min=10;My Picture}", PS_COLUMNS)

    look = column.look
    assert (look.title, look.align, look.min, look.max) == ("My Picture", "right", 10, 30)


def test_a_width_is_both_limits() -> None:
    (column,) = parse_columns("{id;width=20}", PS_COLUMNS)

    assert (column.look.min, column.look.max) == (20, 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("st", "Ambiguous column 'st': it could be status, started"),
        ("nope", "Unknown column 'nope'"),
        ("{id;max=x}", "unknown property 'max=x'"),
        ("{id;TITLE;max=3}", "unknown property 'TITLE'"),
        ("{id", "Invalid format"),
        ("  ", "no columns"),
        ("id//name", "Unknown column ''"),
    ],
)
def test_what_is_not_understood_is_refused_with_exit_code_127(text: str, message: str) -> None:
    with pytest.raises(Failure, match=message.replace("(", r"\(")) as caught:
        parse_columns(text, PS_COLUMNS)

    assert caught.value.exit_code == 127
