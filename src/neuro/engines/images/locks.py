"""Locks between processes of one machine that end with whoever has them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from neuro.engines.images.stopping import Stop

_SOON, _LATER = 0.01, 0.25  # seconds between two tries


class Lock:
    """A file that is locked as long as it is open, here or in a process that it was given to."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self._path = path

    def close(self) -> None:
        """Give it back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Give it back, and remove the file: those who wait for it start anew. Only if alone."""
        os.unlink(self._path)
        self.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def alone(path: str) -> Lock:
    """The lock with nobody beside us; waits until the others are gone. Raises OSError."""
    return _taken(path, fcntl.LOCK_EX)


def alone_unless(path: str, stop: Stop, waiting: Callable[[], None]) -> Lock:
    """The lock with nobody beside us; until then ``waiting`` is called now and then.

    Raises Stopped, OSError, and what ``waiting`` raises.
    """
    pause = _SOON
    while (lock := alone_at_once(path)) is None:
        waiting()
        stop.wait(pause)
        pause = min(_LATER, pause * 2)
    return lock


def shared(path: str) -> Lock:
    """The lock beside others who share it; waits until nobody has it alone. Raises OSError."""
    return _taken(path, fcntl.LOCK_SH)


def alone_at_once(path: str) -> Lock | None:
    """The lock with nobody beside us, or None where somebody has it. Raises OSError."""
    try:
        return _taken(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _taken(path: str, how: int) -> Lock:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            # Whoever had it may have removed it, and somebody made another of this name.
            if _is_at(fd, path):
                return Lock(fd, path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
