"""Times as people say them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from neuro.domain.durations import format_duration, parse_duration
from neuro.domain.errors import InvalidInput


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, with one unit: ``6 seconds ago``, ``yesterday``, ``Jan 01``.

    Both times are aware; the date is the one of ``now``'s time zone.
    """
    seconds = (now - moment).total_seconds()
    if seconds < 1:
        return "now"
    for below, size, name in ((60, 1, "second"), (3600, 60, "minute"), (86400, 3600, "hour")):
        if seconds < below:
            count = int(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    there = moment.astimezone(now.tzinfo)
    days = (now.date() - there.date()).days
    if days <= 1:
        return "yesterday"
    return there.strftime("%b %d" if there.year == now.year else "%b %d %Y")


def iso(moment: datetime) -> str:
    """The full form, as the wire has it."""
    return moment.isoformat()


def iso_seconds(moment: datetime, now: datetime) -> str:
    """The full form to the second, in the time zone of ``now``."""
    return moment.astimezone(now.tzinfo).isoformat(timespec="seconds")


def life_span(minutes: int | None) -> str:
    """``1d``, ``2h30m``, or ``no limit``."""
    return "no limit" if minutes is None else format_duration(timedelta(minutes=minutes))


def approximately(duration: timedelta) -> str:
    """A duration rounded to its largest unit: ``a day``, ``2 hours``."""
    seconds = duration.total_seconds()
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = round(seconds / size)
            article = "an" if name == "hour" else "a"
            return f"{article} {name}" if count == 1 else f"{count} {name}s"
    return "no time"


_RELATIVE = re.compile(r"(\d+(\.\d+)?(d|h|min|m|s))+")


def parse_moment(text: str, now: datetime) -> datetime:
    """Read an ISO date or time, or how long ago (``1d2h3m4s``). Raises InvalidInput.

    A time without a zone is in the zone of ``now``.
    """
    if _RELATIVE.fullmatch(text):
        return now - parse_duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"'{text}' is not a date: write it like 2026-11-21, 2026-11-21T08:30 or, for how"
            " long ago, 1d2h3m4s."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


def local_now() -> datetime:
    """The time on this machine's clock, in its zone."""
    return datetime.now().astimezone()
