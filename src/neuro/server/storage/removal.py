"""Removing a folder with all below it, however deep, while jobs may write there.

By descriptors: down by a name, and up by ``..``, believed only where it leads to the folder that we
came from. No path has to reach the last folder, and one descriptor is open at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from neuro.domain.storage import Removed
from neuro.server.storage.confine import Fence
from neuro.server.storage.paths import readable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_BATCH = 500


@dataclass
class _Level:
    """A folder on the way down: its name, which one it is, and the folders in it to remove yet."""

    name: bytes
    number: tuple[int, int]
    folders: list[bytes]


def remove_below(fence: Fence, folder: int, name: bytes, path: str) -> Iterator[list[Removed]]:
    """Remove ``name``, which clients call ``path``, in the open ``folder``; yields what is gone.

    Raises OSError, ENOTEMPTY too, where somebody writes into a folder meanwhile.
    """
    levels = [_Level(name, (0, 0), [])]
    current = fence.open_real(folder, [name], _FOLDER)
    try:
        yield from _empty(current, levels[-1], path)
        while True:
            if levels[-1].folders:
                child = levels[-1].folders.pop()
                with suppress(FileNotFoundError):  # It may be gone already.
                    below = fence.open_real(current, [child], _FOLDER)
                    os.close(current)
                    current = below
                    levels.append(_Level(child, (0, 0), []))
                    path += f"/{readable(child)}"
                    yield from _empty(current, levels[-1], path)
                continue
            done, told = levels.pop(), path
            if levels:
                path = path[: -len(readable(done.name)) - 1]
                above = _above(fence, folder, current, levels)
                os.close(current)
                current = above
            with suppress(FileNotFoundError):
                os.rmdir(done.name, dir_fd=current if levels else folder)
            yield [Removed(told, is_dir=True)]
            if not levels:
                return
    finally:
        os.close(current)


def _empty(fd: int, level: _Level, told: str) -> Iterator[list[Removed]]:
    """Remove the files of an open folder, and remember its folders."""
    status = os.fstat(fd)
    level.number = (status.st_dev, status.st_ino)
    files, level.folders = _split(fd)
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        for file in part:
            with suppress(FileNotFoundError):
                os.unlink(file, dir_fd=fd)
        yield [Removed(f"{told}/{readable(file)}", is_dir=False) for file in part]


def _above(fence: Fence, folder: int, current: int, levels: list[_Level]) -> int:
    above = os.open("..", _FOLDER | os.O_CLOEXEC, dir_fd=current)
    status = os.fstat(above)
    if (status.st_dev, status.st_ino) == levels[-1].number:
        return above
    os.close(above)
    # It was moved meanwhile, so the way is found from the top.
    return fence.open_real(folder, [level.name for level in levels], _FOLDER)


def _split(folder: int) -> tuple[list[bytes], list[bytes]]:
    files: list[bytes] = []
    folders: list[bytes] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            kept = folders if entry.is_dir(follow_symlinks=False) else files
            kept.append(os.fsencode(entry.name))
    return files, folders
