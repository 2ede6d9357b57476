"""Connections that are used again: to open one takes longer than most of what is asked.

They are kept for as long as one thing goes on, such as a build, and all of it has the same reach:
where a connection leads was looked at when it was opened.
"""

from __future__ import annotations

import select
import threading
from http.client import HTTPConnection

from neuro.engines.images.reaching import Place

_MOST = 8  # that are kept


class Connections:
    """Those that wait for the next request, of whichever thread. To be closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[Place, HTTPConnection]] = []
        self._is_closed = False

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close those that wait; others are not kept any more."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def take(self, place: Place) -> HTTPConnection | None:
        """One that leads there, as far as can be seen from here; it is the caller's then."""
        while True:
            with self._lock:
                found = next((one for one in reversed(self._idle) if one[0] == place), None)
                if found is None:
                    return None
                self._idle.remove(found)
            if _is_open(found[1]):
                return found[1]
            found[1].close()

    def give(self, place: Place, connection: HTTPConnection) -> None:
        """Keep one whose last answer was read to its end, or close it."""
        with self._lock:
            is_kept = not self._is_closed
            if is_kept:
                self._idle.append((place, connection))
                more = [one for _, one in self._idle[:-_MOST]]
                del self._idle[:-_MOST]
        for one in more if is_kept else [connection]:
            one.close()


def _is_open(connection: HTTPConnection) -> bool:
    """Whether nothing has come since: a registry that hangs up says so, and else says nothing."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)
