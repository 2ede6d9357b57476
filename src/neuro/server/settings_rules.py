"""What the values of ``server.toml`` may be, beyond their types: each error names the key.

Whatever has no rule of its own here is a number that is finite and not negative, or a text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from neuro.domain.errors import InvalidInput

if TYPE_CHECKING:
    from neuro.server.settings import PresetSetting, Settings

_CENTURY = 36_500.0
_DAY = 86_400.0


class Rule(NamedTuple):
    """The range of a number, its ends included, and what to call it."""

    least: float
    most: float
    what: str


_NUMBER = Rule(0, 1e18, "a number that is not negative")
_COUNT = Rule(0, 1e12, "a count, 0 or more")
_DAYS = Rule(0, _CENTURY, "days, from 0 to 36500")
_SECONDS = Rule(0, _CENTURY * _DAY, "seconds, 0 or more")
_RULES: Mapping[str, Rule] = {
    "stop_grace_seconds": Rule(0, _DAY, "seconds, from 0 to 86400"),
    "capacity.cpu": Rule(0.01, 1e6, "CPU cores, 0.01 or more"),
    "engines.cpu": Rule(0.01, 1e6, "CPU cores, 0.01 or more"),
    "retention.days": _DAYS,
    "retention.cache_days": _DAYS,
    "retention.jobs": _COUNT,
    "retention.bakes": _COUNT,
    "bakes.executor_silence": _SECONDS,
    "bakes.start": _SECONDS,
    "bakes.grace": _SECONDS,
    "bakes.restart_pause": _SECONDS,
    "bakes.restarts": _COUNT,
    "bakes.main_jobs": _COUNT,
    "bakes.main_jobs_per_owner": _COUNT,
    **dict.fromkeys(
        ("limits.requests_per_user", "limits.streams_per_user", "limits.connections_per_address"),
        Rule(1, 1e6, "a count, 1 or more"),
    ),
    **dict.fromkeys(
        ("limits.head", "limits.body_stall", "limits.idle"), Rule(0.1, _DAY, "seconds, 0.1 or more")
    ),
    "presets.cpu": Rule(0.001, 1e6, "CPU cores, 0.001 or more"),
    "presets.gpu": Rule(0, 10_000, "a count of GPUs, 0 or more"),
}


def check_settings(settings: Settings, engines: Collection[str]) -> None:
    """Raise InvalidInput for the first value that cannot be; ``engines`` are those there are."""
    check_numbers(settings)
    names: set[str] = set()
    for preset in settings.presets:
        _check_preset(preset, names, engines)
        names.add(preset.name)
    database = settings.database
    if database is not None and not database.startswith(
        ("sqlite:///", "postgres://", "postgresql://", "postgresql+psycopg://")
    ):
        raise InvalidInput(
            f"database begins with '{database.partition(':')[0][:40]}': it must be a URL such as"
            " postgresql://user@host/name or sqlite:///PATH"
        )


def check_numbers(struct: msgspec.Struct, at: str = "", key: str = "") -> None:
    """Raise InvalidInput for the first number that cannot be.

    ``at`` is what to call ``struct``, and ``key`` the section whose rules it has.
    """
    for shown, of, value in _values(struct, at, key):
        rule = _RULES.get(of, _NUMBER)
        if not math.isfinite(value) or not rule.least <= value <= rule.most:
            raise InvalidInput(f"{shown} is {value}: give {rule.what}")


def _values(
    struct: msgspec.Struct, at: str = "", key: str = ""
) -> Iterator[tuple[str, str, float]]:
    """What to call it, its key and its value, of every number; keys count no items of lists."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        below, of = f"{at}.{name}" if at else name, f"{key}.{name}" if key else name
        if isinstance(value, msgspec.Struct):
            yield from _values(value, below, of)
        elif isinstance(value, list):
            for number, each in enumerate(value, 1):
                if isinstance(each, msgspec.Struct):
                    yield from _values(each, f"{below}[{number}]", of)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield below, of, value


def _check_preset(preset: PresetSetting, names: Collection[str], engines: Collection[str]) -> None:
    if not 1 <= len(preset.name) <= 64 or not preset.name.isprintable():
        raise InvalidInput(
            f"presets: {preset.name[:80]!r} cannot be a preset's name: use 1 to 64 characters,"
            " without control characters"
        )
    if preset.name in names:
        raise InvalidInput(f"presets: two are called '{preset.name}': give each a name of its own")
    if preset.engine not in engines:
        raise InvalidInput(
            f"preset '{preset.name}': engine is '{preset.engine}', which this server does not have:"
            f" it must be {' or '.join(sorted(engines))}"
        )
    try:
        price = Decimal(preset.credits_per_hour)
    except InvalidOperation:
        price = Decimal("nan")
    if not price.is_finite() or price < 0:
        raise InvalidInput(
            f"preset '{preset.name}': credits_per_hour is '{preset.credits_per_hour}': it must be a"
            ' number in quotes, such as "0.5"'
        )
