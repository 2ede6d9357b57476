"""Where a daemon listens: what DOCKER_HOST says, or the usual sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCKER = ("/run/docker.sock", "/var/run/docker.sock")
PODMAN = ("/run/podman/podman.sock", "/var/run/podman/podman.sock")
EVERYWHERE = (*DOCKER, *PODMAN)
UNIX = "unix://"
TCP = "tcp://"


def place_of_client(environment: Mapping[str, str]) -> str | None:
    """Where the daemon of a person's command line is, as an ``Asker`` takes it; None for nowhere.

    Raises ValueError with a sentence for a DOCKER_HOST that is neither a socket nor TCP.
    """
    host = environment.get("DOCKER_HOST")
    if host:
        if host.startswith(UNIX):
            return host.removeprefix(UNIX)
        if host.startswith(TCP):
            return host.rstrip("/")
        raise ValueError(
            f"DOCKER_HOST is {host}: only unix:///PATH and tcp://HOST:PORT without TLS can be used"
        )
    return next((place for place in _usual(environment) if Path(place).exists()), None)


def _usual(environment: Mapping[str, str]) -> Iterator[str]:
    yield from EVERYWHERE
    own = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    yield from (f"{own}/docker.sock", f"{own}/podman/podman.sock")
    if home := environment.get("HOME"):
        yield from (f"{home}/.docker/run/docker.sock", f"{home}/.docker/desktop/docker.sock")
