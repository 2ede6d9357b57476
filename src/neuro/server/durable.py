"""What is on the disk after a power loss: small files that are whole or not there, large ones."""

from __future__ import annotations

import ctypes
import os
import secrets
from pathlib import Path

_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def write(path: Path, text: str) -> None:
    """Put a file with this line, for its owner alone, in place of ``path``. Raises OSError."""
    # Made anew, never through a link that somebody else may have put there.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("x", encoding="ascii") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())  # else there may be an empty file in its place
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the disk begin with a part of a file: the fsync at its end finds little left to do.

    Only a hint: where the call is missing, the fsync does all of it.
    """
    _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE
    )


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
