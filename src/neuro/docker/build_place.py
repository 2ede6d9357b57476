"""Where a daemon builds, as the platform tells a builder: which host has the registry for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_REGISTRY, _KEY = "NEURO_BUILD_REGISTRY", "NEURO_BUILD_KEY"


class BuildPlace(NamedTuple):
    """``registry`` is the host of the platform's for the daemon, ``key`` that of whose caches."""

    registry: str
    key: str


def as_environment(place: BuildPlace) -> dict[str, str]:
    """What tells a builder, whose environment nobody else writes.

    >>> of_environment(as_environment(BuildPlace("localhost:5000", "k"))).key
    'k'
    """
    return {_REGISTRY: place.registry, _KEY: place.key}


def of_environment(environment: Mapping[str, str]) -> BuildPlace:
    """What ``as_environment`` told. Raises KeyError where nothing did."""
    return BuildPlace(environment[_REGISTRY], environment[_KEY])
