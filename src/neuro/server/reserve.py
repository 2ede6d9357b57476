"""Room on the disk that is kept for a start on a full one.

A start writes a few small files, and what it cleans up makes room only once it is through. So a
file takes space while there is some, and a start that finds the disk full gives it back first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 2 << 20  # bytes
_NEEDED = 1 << 20  # bytes that a start may write
_PLENTY = 8 * SIZE  # bytes that must be free before a reserve is made


def spend(folder: Path) -> None:
    """Give the reserve of the data folder back to the disk, if the disk is full."""
    if shutil.disk_usage(folder).free < _NEEDED:
        _file(folder).unlink(missing_ok=True)


def keep(folder: Path) -> None:
    """Take the reserve again, if there is plenty of room."""
    path = _file(folder)
    if path.exists() or shutil.disk_usage(folder).free < _PLENTY:
        return
    with contextlib.suppress(OSError), path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)


def _file(folder: Path) -> Path:
    return folder / "run" / "reserve"
