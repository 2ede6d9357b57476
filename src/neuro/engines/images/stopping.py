"""Ending what others do in threads of their own: at once, wherever they wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """It was stopped before its end."""


class Stop:
    """A thing that is set once. Who is at work looks at it, waits on it, or leaves word with it.

    ``person`` is whom the work is for, where people share what there is little of.
    """

    def __init__(self, person: str = "") -> None:
        self.person = person
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._told: dict[int, Callable[[], None]] = {}
        self._number = 0

    def set(self) -> None:
        """Stop whoever is at work, from another thread."""
        with self._lock:
            self._event.set()
            told = list(self._told.values())
        for tell in told:
            tell()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Stopped once it is set."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait so long. Raises Stopped as soon as it is set."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Meanwhile ``tell`` is called when it is set, from that other thread, or at once."""
        with self._lock:
            self._number += 1
            number = self._number
            self._told[number] = tell
        try:
            if self.is_set:
                tell()
            yield
        finally:
            with self._lock:
                del self._told[number]
