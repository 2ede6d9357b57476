"""The supervisor's event loop: descriptors and deadlines, and nothing that wakes up by itself.

``asyncio`` would be 15 MB in every supervisor's memory.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT


class Loop:
    """Calls back when a descriptor is ready or a time has come."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._deadlines: list[tuple[float, Callable[[], None]]] = []
        self.running = True

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with what happened on ``fd``; also on errors and hang-ups."""
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; nothing if it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` once, later."""
        self._deadlines.append((time.monotonic() + seconds, action))

    def on_exit(self, pid: int, action: Callable[[], None]) -> int:
        """Call ``action`` once when the process has ended; the descriptor that tells.

        Raises ProcessLookupError.
        """
        fd = os.pidfd_open(pid)

        def ended(_: int) -> None:
            self.forget(fd)
            os.close(fd)
            action()

        self.watch(fd, READ, ended)
        return fd

    def run(self) -> None:
        """Serve until ``running`` is False."""
        while self.running:
            for fd, events in self._poll.poll(self._patience()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            now = time.monotonic()
            due = [item for item in self._deadlines if item[0] <= now]
            if due:
                self._deadlines = [item for item in self._deadlines if item[0] > now]
                for _, action in due:
                    action()

    def _patience(self) -> float | None:
        if not self._deadlines:
            return None
        nearest = min(deadline for deadline, _ in self._deadlines)
        return max(0.0, nearest - time.monotonic()) * 1000 + 1
