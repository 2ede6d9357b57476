from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from neuro.cli.render.times import ago, approximately, life_span, parse_moment
from neuro.domain.errors import InvalidInput

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(seconds=0), "now"),
        (timedelta(seconds=-3), "now"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(seconds=6), "6 seconds ago"),
        (timedelta(seconds=59.9), "59 seconds ago"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(minutes=3, seconds=50), "3 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(hours=23, minutes=59), "23 hours ago"),
        (timedelta(hours=25), "yesterday"),
        (timedelta(days=3), "Nov 18"),
        (timedelta(days=400), "Oct 17 2025"),
    ],
)
def test_a_time_is_said_with_one_unit(before: timedelta, said: str) -> None:
    assert ago(NOW - before, NOW) == said


def test_the_date_is_the_one_of_the_readers_zone() -> None:
    east = timezone(timedelta(hours=9))

    assert ago(datetime(2026, 11, 17, 20, 0, tzinfo=UTC), NOW.astimezone(east)) == "Nov 18"


@pytest.mark.parametrize(
    ("minutes", "said"), [(None, "no limit"), (1440, "1d"), (1500, "1d1h"), (90, "1h30m")]
)
def test_a_life_span_is_said_in_units(minutes: int | None, said: str) -> None:
    assert life_span(minutes) == said


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(days=1), "a day"),
        (timedelta(hours=1), "an hour"),
        (timedelta(minutes=150), "2 hours"),
        (timedelta(), "no time"),
    ],
)
def test_a_duration_is_rounded_to_its_largest_unit(duration: timedelta, said: str) -> None:
    assert approximately(duration) == said


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1d", NOW - timedelta(days=1)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30:00+00:00", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_date_or_how_long_ago(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW) == moment


def test_what_is_no_moment_is_refused_with_the_right_forms() -> None:
    with pytest.raises(InvalidInput, match="write it like 2026-11-21"):
        parse_moment("soon", NOW)
