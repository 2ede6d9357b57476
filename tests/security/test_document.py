"""The table of escapes in the documentation is the one that is tried here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security.escapes import ESCAPES

DOCS = Path(__file__).parents[2] / "docs"
_MARKED = re.compile(r"<!-- escapes -->\n(.*?)<!-- /escapes -->", re.DOTALL)


def rows(page: str) -> list[tuple[str, str]]:
    """The rows of the table between the markers, without its head."""
    found = _MARKED.search((DOCS / page).read_text("utf-8"))
    assert found is not None, f"{page} has no table of escapes"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [(tried, stopped_by) for tried, stopped_by in cells]


def test_the_document_shows_what_is_tried() -> None:
    assert rows("security.md") == list(ESCAPES)


def test_no_row_is_there_twice() -> None:
    assert len({tried for tried, _ in ESCAPES}) == len(ESCAPES)


@pytest.mark.parametrize("page", ["ru/security.md"])
def test_a_translation_has_as_many_rows(page: str) -> None:
    assert len(rows(page)) == len(ESCAPES)
