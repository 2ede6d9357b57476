"""Durations as people write them: ``1d2h3m4s``, ``2d3h20min``."""

from __future__ import annotations

import re
from datetime import timedelta

from neuro.domain.errors import InvalidInput

_UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:d|h|min|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|min|m|s)")


def parse_duration(text: str) -> timedelta:
    """Parse ``1d2h3m4s`` (``min`` is another spelling of ``m``; ``0`` is zero).

    >>> parse_duration("2d3h20min")
    datetime.timedelta(days=2, seconds=12000)

    Raises InvalidInput for anything else.
    """
    word = text.strip().replace(" ", "")
    if word == "0":
        return timedelta()
    units = [unit for _, unit in _PART.findall(word)]
    if not _WHOLE.fullmatch(word) or len(set(units)) != len(units):
        raise InvalidInput(f"'{text}' is not a duration: write it like 1d2h3m4s (2h30m, 45s).")
    try:
        return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(word)))
    except OverflowError:
        raise InvalidInput(
            f"'{text}' is too long: a duration has fewer than a billion days."
        ) from None


def format_duration(duration: timedelta) -> str:
    """Write a duration the way it is read: ``1d1h``; zero is ``0s``.

    >>> format_duration(timedelta(hours=25, seconds=3))
    '1d1h3s'
    """
    seconds = int(duration.total_seconds())
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
