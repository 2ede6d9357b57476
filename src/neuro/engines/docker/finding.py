"""Whether this machine has a daemon for containers, and one that images can be had from.

Nothing is changed by looking.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuro.docker.asking import Refused, Version, chosen_version, numbers
from neuro.engines.base import EngineFault
from neuro.engines.docker import launcher_program
from neuro.engines.docker.api import Daemon
from neuro.engines.docker.settings import socket_path

_SECONDS = 10.0  # for an answer
_BUILDS = (1, 41)  # the API of Docker 20.10, the first whose BuildKit is complete
_HUB, _IMAGE = ("registry-1.docker.io", 443), "busybox"
# What daemons say where no registry was reached, and never of what a registry answered.
_UNREACHED = ("dial tcp", "no such host", "i/o timeout", "deadline exceeded", "Client.Timeout")


@dataclass(frozen=True)
class Found:
    """A daemon that answers at ``place``; ``lack`` is why jobs would not run on it, if so."""

    place: str
    lack: str | None = None


def find(places: Sequence[str], environment: Mapping[str, str]) -> Found | None:
    """The daemon of this machine that listens at one of ``places``, or where DOCKER_HOST says.

    None where none answers.
    """
    try:
        place = socket_path(None, environment, places)
        daemon = Daemon(place, seconds=_SECONDS)
        version = daemon.version()
    except (EngineFault, OSError, Refused, ValueError):
        return None
    try:
        chosen_version(version)
        launcher_program.check_processor()
    except (EngineFault, ValueError) as error:
        return Found(place, str(error))
    if os.geteuid() != 0:
        return Found(place, "it can only be used by a server that root runs")
    if (why := _unreached(daemon, is_podman=version.is_podman)) is not None:
        return Found(place, f"it reaches no registry, so it has no images to pull ({why})")
    return Found(place)


def cannot_build(version: Version) -> str | None:
    """Why a daemon builds no images."""
    if version.is_podman:
        return "podman's service has no BuildKit"
    if numbers(version.api_version) < _BUILDS:
        return "its BuildKit is too old"
    return None


def _unreached(daemon: Daemon, *, is_podman: bool) -> str | None:
    """Why public images cannot be pulled."""
    try:
        if is_podman:  # it does not look into registries for others
            socket.create_connection(_HUB, _SECONDS).close()
            return None
        registries = daemon.info().registries
        if registries is not None and registries.mirrors:
            return None  # where it pulls from; of those it tells nothing
        daemon.check_registry(_IMAGE)
    except OSError as error:
        return error.strerror or str(error)
    except Refused as refused:
        unreached = any(word in refused.message for word in _UNREACHED)
        return refused.message if unreached else None
    return None
