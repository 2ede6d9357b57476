"""Volumes of a run as mounts of this machine, for the daemon to mount them into the container.

The daemon is told paths, and looks them up when it is too late: whoever may write beside a volume
could have put a link in its place. So a keeper opens the volume through no link at all, and mounts
what it has opened where nobody else can write. In such a mount the files of the storage, which
belong to a user of their own, are root's.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from neuro.engines.sandbox import identities, kernel, mounts

_FOLDER = "mounts"


def users() -> int:
    """How the owners of the storage's files are those of a container: a user namespace's file."""
    return identities.user_namespace(f"{identities.STORAGE} 0 {identities.BLOCK}")


class Volumes:
    """The mounts that one keeper made. They are in nobody's way once the container has its own."""

    def __init__(self, folder: str, users: int) -> None:
        """``folder`` is the engine's."""
        self._folder = f"{folder}/{_FOLDER}"
        self._users = users
        self._places: list[str] = []

    def mount(self, source: str, target: str, *, read_only: bool) -> str:
        """Where a volume is mounted now. Raises ValueError for what is impossible, OSError."""
        opened = mounts.open_source(source, target)
        try:
            tree = mounts.volume(opened, target, self._users, read_only=read_only)
            try:
                return self._attach(tree, is_folder=stat.S_ISDIR(os.fstat(opened).st_mode))
            finally:
                os.close(tree)
        finally:
            os.close(opened)

    def files(self, files: Sequence[tuple[bytes, int]]) -> list[str]:
        """Where new files, (content, mode), are now, in memory alone. Raises OSError."""
        if not files:
            return []
        os.makedirs(self._folder, exist_ok=True)
        place = self._new_place()
        mounts.mount_in_memory(place, sum(len(content) for content, _ in files), len(files))
        made = [f"{place}/{number}" for number in range(len(files))]
        for path, (content, mode) in zip(made, files, strict=True):
            mounts.write_file(path, content, mode)
        return made

    def _new_place(self) -> str:
        place = f"{self._folder}/{os.getpid()}-{len(self._places)}"
        self._places.append(place)
        return place

    def _attach(self, tree: int, *, is_folder: bool) -> str:
        os.makedirs(self._folder, exist_ok=True)
        place = self._new_place()
        if is_folder:
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            kernel.attach(tree, opened)
        finally:
            os.close(opened)
        return place

    def release(self) -> None:
        """The container has them, or never will."""
        for place in self._places:
            _detach(place)
        self._places.clear()


def sweep(folder: str) -> None:
    """Take away the mounts of keepers that are gone."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"{folder}/{_FOLDER}"):
            if not os.path.exists(f"/proc/{name.partition('-')[0]}"):
                _detach(f"{folder}/{_FOLDER}/{name}")


def _detach(place: str) -> None:
    with contextlib.suppress(OSError):  # nothing is mounted there
        kernel.unmount(place)
    # Never with what is in it: that would be a volume's, if it is mounted after all.
    with contextlib.suppress(OSError):
        os.rmdir(place)
    with contextlib.suppress(OSError):
        os.unlink(place)
