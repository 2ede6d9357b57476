"""Layers that outlive a power loss: a file beside each says that the disk has all of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable

SETTLED = "settled"
_libc = ctypes.CDLL(None, use_errno=True)


def settle(folder: str, places: Iterable[str]) -> None:
    """Let the disk have all of ``folder``, then say so of the layers at ``places`` in it.

    Raises OSError.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
    for place in places:
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            open(f"{place}/{SETTLED}", "w").close()
