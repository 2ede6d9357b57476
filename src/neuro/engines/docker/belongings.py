"""What the container of a run is given of this machine: the way to its keeper, volumes, files."""

from __future__ import annotations

import contextlib
import os

from neuro.engines.docker.door import Door
from neuro.engines.docker.launcher_program import FOLDER
from neuro.engines.docker.order import Mount, Order
from neuro.engines.docker.volumes import Volumes
from neuro.engines.sandbox import layout

_PRIVATE = "layers"  # of a run's folder: what goes when the run is over


class Belongings:
    """Lies in the run's folder, which is open as ``place``, until the run is over."""

    def __init__(self, order: Order, place: int, folder: str, users: int) -> None:
        self._order = order
        self._here = f"/proc/self/fd/{place}/{_PRIVATE}"
        self._there = f"{os.path.realpath(folder)}/{_PRIVATE}"  # as the daemon knows it
        self._volumes = Volumes(order.folder, users)

    def open_door(self) -> Door:
        """The way to the keeper. Raises OSError."""
        return Door(f"{self._here}/door")

    def prepare(self) -> list[Mount]:
        """All that is to be mounted. Raises ValueError for what is impossible, OSError."""
        os.makedirs(self._here, exist_ok=True)
        mounts = [Mount(f"{self._there}/door", FOLDER, True)]
        for one in self._order.mounts:
            _check_target(one.target)
            source = self._volumes.mount(one.source, one.target, read_only=one.read_only)
            mounts.append(Mount(source, one.target, one.read_only))
        files = self._order.spec.files
        for file in files:
            _check_target(file.target)
        sources = self._volumes.files([(file.content, file.mode) for file in files])
        mounts += [
            Mount(source, file.target, True) for source, file in zip(sources, files, strict=True)
        ]
        return mounts

    def release(self) -> None:
        """The container has its mounts, or never will."""
        self._volumes.release()

    def clear(self) -> None:
        """Delete all. What stays is left to the next server's start."""
        with contextlib.suppress(OSError):
            layout.remove_tree(self._here)


def _check_target(target: str) -> None:
    if not target.startswith("/") or ".." in target.split("/") or not target.strip("/"):
        raise ValueError(f"{target!r} is not a place to mount at: give an absolute path")
