"""How long a job may run or wait: one bound for the server, command lines and flow files."""

from __future__ import annotations

import math
from datetime import timedelta

from neuro.domain.durations import format_duration
from neuro.domain.errors import InvalidInput

LONGEST = timedelta(days=366_000)  # Dates end with the year 9999.
LONGEST_SECONDS = LONGEST.total_seconds()
LONGEST_MINUTES = LONGEST // timedelta(minutes=1)
_LONGEST_TEXT = f"{format_duration(LONGEST)}, which is about a thousand years"


def life_span_minutes(seconds: float, written: str | None = None) -> int | None:
    """A life span on the wire: whole minutes, rounded up; None (no limit) for zero.

    >>> life_span_minutes(90), life_span_minutes(0)
    (2, None)

    ``written`` is what the person wrote. Raises InvalidInput for what no job can have.
    """
    check_life_span(seconds, written)
    return math.ceil(seconds / 60) or None


def check_life_span(seconds: float, written: str | None = None) -> None:
    """Raise InvalidInput where no job can live that long, or that briefly."""
    if 0 < seconds < 60:
        raise InvalidInput(
            f"A job's life span of {_shown(seconds, written)} is too short: give 1m or more, in"
            " whole minutes. `timeout 5s COMMAND` in the job ends a command to the second."
        )
    check_longest("A job's life span", seconds, written)


def check_schedule_timeout(seconds: float, written: str | None = None) -> None:
    """Raise InvalidInput where no job can wait that long for its start."""
    if seconds <= 0:
        raise InvalidInput("A job's schedule timeout must be more than 0 seconds.")
    check_longest("A job's schedule timeout", seconds, written)


def check_longest(what: str, seconds: float, written: str | None = None) -> None:
    """Raise InvalidInput for a time beyond all bounds. ``what`` begins the sentence."""
    if not seconds <= LONGEST_SECONDS:
        raise InvalidInput(
            f"{what} of {_shown(seconds, written)} is too long: give at most {_LONGEST_TEXT}."
        )


def _shown(seconds: float, written: str | None) -> str:
    return written or f"{seconds:g}s"
