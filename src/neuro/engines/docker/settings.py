"""What a person may decide about the Docker engine, and where its daemon is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neuro.docker.places import EVERYWHERE, UNIX
from neuro.engines.base import EngineFault, NotReady
from neuro.engines.sandbox.output import Retention


@dataclass(frozen=True)
class DockerSettings:
    """``host`` is where the daemon listens, as DOCKER_HOST has it.

    None: it is looked for in ``places``. ``processes`` bounds processes and threads of a run
    together. ``builds`` says that the daemon's BuildKit builds images.
    """

    host: str | None = None
    places: Sequence[str] = EVERYWHERE
    processes: int = 8192
    builds: bool = False
    retention: Retention = field(default_factory=Retention)


def socket_path(
    host: str | None, environment: Mapping[str, str], places: Sequence[str] = EVERYWHERE
) -> str:
    """The daemon's socket. Raises EngineFault for another machine's, NotReady where none is."""
    host = host or environment.get("DOCKER_HOST")
    if host:
        if not host.startswith(UNIX):
            raise EngineFault(
                f"{host} is not a socket of this machine: the docker engine needs the daemon of"
                " this machine, such as unix:///run/docker.sock"
            )
        return host.removeprefix(UNIX)
    for place in places:
        if os.path.exists(place):
            return place
    raise NotReady(
        "no Docker daemon was found: install one (apt install docker.io), start it, or say where it"
        ' is with host = "unix:///…" in server.toml'
    )
