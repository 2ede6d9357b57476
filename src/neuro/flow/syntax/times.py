"""Conversions of what flow files say of time: durations, schedules, time zones."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from neuro.domain.errors import InvalidInput
from neuro.domain.life_spans import check_life_span, check_longest, check_schedule_timeout
from neuro.flow.syntax.bad_values import BadValue, refuse_nothing, shown


def cron(value: object) -> str:
    """A schedule of five fields that comes some time."""
    # Imported here and below: few files have a schedule, and every start would pay.
    from datetime import datetime

    from cronsim import CronSim, CronSimError

    text = str(value)
    hint = 'Write minute, hour, day, month and weekday, such as "0 3 * * 1-5" or "*/15 * * * *".'
    try:
        fields = len(text.split())
        if fields != 5:
            raise BadValue(
                f"{shown(value)} is not a schedule: expected 5 fields, got {fields}", hint
            )
        next(CronSim(text, datetime(2024, 1, 1)))
    except CronSimError as error:
        raise BadValue(f"{shown(value)} is not a schedule: {str(error).lower()}", hint) from None
    except StopIteration:
        raise BadValue(f"{shown(value)} is a time that never comes") from None
    return text


def time_zone(value: object) -> str:
    """The name of a time zone."""
    from zoneinfo import ZoneInfo, available_timezones

    name = str(value)
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        from difflib import get_close_matches

        known = available_timezones()
        if not known:
            # This machine has no database of time zones: the server, which has one, will tell.
            return name
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "Write it as Europe/Berlin, or UTC."
        raise BadValue(f"{shown(value)} is not a time zone", hint) from None
    return name


_DELTA: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_DELTA_SECONDS: Final = (86400, 3600, 60, 1)


def time_delta(value: object) -> float:
    """Seconds, of a number or of a text such as 1d2h."""
    refuse_nothing(value)
    hint = "Write seconds, or days, hours, minutes and seconds in this order: 1d2h3m4s."
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip()
        match = _DELTA.fullmatch(text) if text else None
        if match is not None:
            seconds = float(
                sum(
                    int(number) * unit
                    for number, unit in zip(match.groups(), _DELTA_SECONDS, strict=True)
                    if number
                )
            )
        else:
            try:
                seconds = float(text)
            except ValueError:
                seconds = None
    if seconds is None or math.isnan(seconds):
        raise BadValue(f"{shown(value)} is not a time delta unit", hint)
    if seconds < 0:
        raise BadValue(f"{shown(value)} is negative: a time delta is not", hint)
    return seconds


def _bounded(value: object, check: Callable[[float, str | None], None]) -> float:
    seconds = time_delta(value)
    try:
        # Zero means here what it means where nothing is written.
        if seconds:
            check(seconds, value if isinstance(value, str) else None)
    except InvalidInput as error:
        raise BadValue(str(error)) from None
    return seconds


def life_span(value: object) -> float:
    """Seconds that a job may run, within the bounds of the platform."""
    return _bounded(value, check_life_span)


def schedule_timeout(value: object) -> float:
    """Seconds that a job may wait for its place, within the bounds of the platform."""
    return _bounded(value, check_schedule_timeout)


def bake_life_span(value: object) -> float:
    """Seconds that a bake may take, within the bounds of the platform."""
    return _bounded(value, partial(check_longest, "A bake's life span"))
