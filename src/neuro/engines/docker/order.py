"""What a keeper is told of its run: the run itself, and where everything is."""

from __future__ import annotations

import msgspec

from neuro.engines.base import RunRef, RunSpec


class Mount(msgspec.Struct, frozen=True):
    """A path of this machine at an absolute ``target`` inside."""

    source: str
    target: str
    read_only: bool


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``folder`` is the engine's, ``socket`` the daemon's, ``version`` of its API.

    ``is_podman`` says that it is podman's service.

    ``log_limit`` and ``log_portion`` are bytes of output that are kept, and dropped at once.
    """

    folder: str
    socket: str
    version: str
    is_podman: bool
    installation: str
    spec: RunSpec
    mounts: tuple[Mount, ...] = ()
    processes: int = 8192
    log_limit: int = 1 << 30
    log_portion: int = 64 << 20

    @property
    def ref(self) -> RunRef:
        """Which run."""
        return RunRef(self.spec.job_id, self.spec.run)
