"""When a schedule is due: cron expressions in time zones. Pure: values in, values out.

Daylight saving as cron does it: a fixed time that a day skips is due right after the gap, one that
a day has twice is due once; ``*`` in minutes or hours follows the hours as they really pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from neuro.domain.bakes import CatchUp
from neuro.domain.errors import InvalidInput

MAX_CATCH_UP = 100
MAX_CRON = 255
MAX_TIMEZONE = 64
# A time noticed later than this was missed; what is earlier is the ordinary delay of a timer.
ON_TIME = timedelta(seconds=90)


def check_timing(cron: str, timezone: str, now: datetime) -> None:
    """Raise InvalidInput for a bad cron expression or time zone, or one never due again."""
    _zone(timezone)
    try:
        if len(cron) > MAX_CRON or len(cron.split()) != 5:
            raise CronSimError("There are five fields")
        following = next_after(cron, timezone, now)
    except CronSimError as error:
        raise InvalidInput(
            f"Invalid cron expression '{cron[:80]}' ({error}): write five fields, minute hour"
            " day-of-month month day-of-week, for example '30 6 * * MON-FRI'."
        ) from None
    if following is None:
        raise InvalidInput(
            f"The cron expression '{cron}' is never due: there is no such day. Write for example"
            " '0 6 L * *' for the last day of each month."
        )


def next_after(cron: str, timezone: str, moment: datetime) -> datetime | None:
    """The first time due after ``moment``, in UTC; None where there is none."""
    return next(_times(cron, timezone, moment), None)


def due_between(
    cron: str, timezone: str, after: datetime, until: datetime, most: int
) -> list[datetime]:
    """The times due after ``after`` and not later than ``until``, oldest first.

    Of more than ``most`` only the newest, looked for from the end: years of downtime cost nothing.
    """
    window = timedelta(hours=1)
    while True:
        start = max(after, until - window)
        times = list(takewhile(lambda time: time <= until, _times(cron, timezone, start)))
        if len(times) >= most or start == after:
            return times[-most:]
        window *= 2


def to_start(times: list[datetime], now: datetime, catch_up: CatchUp) -> list[datetime]:
    """Which of the times that have become due a bake is started for, oldest first."""
    if catch_up is CatchUp.ALL:
        return times
    if catch_up is CatchUp.LAST:
        return times[-1:]
    return [time for time in times[-1:] if now - time <= ON_TIME]


def _times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    newest = after
    for local in CronSim(cron, after.astimezone(_zone(timezone))):
        time = local.astimezone(UTC)
        # While the wall clock shows an hour for the second time, the library may tell its first.
        if time > newest:
            yield time
            newest = time


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone[: MAX_TIMEZONE + 1])
    except (LookupError, ValueError, OSError):
        raise InvalidInput(
            f"Unknown time zone '{timezone[:80]}': write it as the tz database does, for example"
            " 'Europe/Berlin' or 'UTC'."
        ) from None
