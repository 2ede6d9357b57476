"""How far whoever fetches images and files may go: a value, which ``reaching`` holds them to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

_VARIABLE = "NEURO_BUILD_REACH"


class Reach(msgspec.Struct, frozen=True):
    """Which registries are asked by http (``insecure``), and which places nobody is asked at.

    These are the addresses of this machine and of its link, and the networks ``closed``; only the
    registries ``local`` may be there. Registries are as people write them in an image's name.
    """

    insecure: Collection[str] = ()
    local: Collection[str] = ()
    closed: Collection[str] = ()


OUTSIDE = Reach()  # where nobody says more


def plain(*registries: str) -> Reach:
    """Registries that are asked by http, and that may be on this machine."""
    return Reach(insecure=registries, local=registries)


def as_environment(reach: Reach) -> dict[str, str]:
    """What tells a run that builds images, whose environment nobody else writes.

    >>> of_environment(as_environment(plain("lab:5000"))).local
    ['lab:5000']
    """
    return {_VARIABLE: msgspec.json.encode(reach).decode()}


def of_environment(environment: Mapping[str, str]) -> Reach:
    """What ``as_environment`` told."""
    return msgspec.json.decode(environment.get(_VARIABLE, "{}"), type=Reach)
