from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.durations import format_duration, parse_duration
from neuro.domain.errors import InvalidInput


@given(st.integers(0, 10 * 365 * 86400))
def test_what_is_written_is_read_again(seconds: int) -> None:
    span = timedelta(seconds=seconds)

    assert parse_duration(format_duration(span)) == span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1d", 86400), ("2h30m", 9000), ("20min", 1200), ("45s", 45), ("1d2h3m4s", 93784)],
)
def test_units_are_added_up(text: str, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["h", "1x", "1h 1h 1q", "-1h", "one hour"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)
