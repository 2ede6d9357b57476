"""Turns what the operating system says about a file into the platform's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from neuro.domain.errors import NotFound, PlatformError, StorageFault
from neuro.server.storage.confine import Escape


def fault_of(error: OSError, path: str) -> PlatformError:
    """The platform's error for what the operating system said about ``path``."""
    if isinstance(error, Escape):
        return StorageFault(
            "EACCES",
            f"'{path}' goes through a symbolic link that leads out of the storage, or is dangling.",
        )
    if error.errno == errno.ENOENT:
        return NotFound(f"'{path}' was not found.")
    if isinstance(error, BlockingIOError):
        return StorageFault("EBUSY", f"'{path}' is in use by another program: try again later.")
    number = error.errno or errno.EIO
    symbol = "ENOSPC" if number == errno.EDQUOT else errno.errorcode.get(number, "EIO")
    if symbol == "ENOSPC":
        return StorageFault(symbol, f"No space is left on the server's disk for '{path}'.")
    return StorageFault(symbol, f"{os.strerror(number)}: '{path}'.")


@contextmanager
def faults(path: str) -> Iterator[None]:
    """Turn every OSError inside into the platform's own error about ``path``."""
    try:
        yield
    except OSError as error:
        raise fault_of(error, path) from error


@contextmanager
def faults_but_existing(path: str) -> Iterator[None]:
    """Like ``faults``, but lets FileExistsError pass."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise fault_of(error, path) from error
