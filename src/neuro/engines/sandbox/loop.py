"""The supervisor's event loop: descriptors and deadlines, and nothing that wakes up by itself.

``asyncio`` would be 15 MB in every supervisor's memory.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable

from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox.allowance import Allowance

READ, WRITE = select.POLLIN, select.POLLOUT
ACCEPT_SECONDS = 0.1  # between two tries to accept a connection without descriptors


class Loop:
    """Calls back when a descriptor is ready or a time has come.

    With an ``allowance`` it rests when this process has taken more processor time than that.
    """

    def __init__(self, allowance: Allowance | None = None) -> None:
        self._allowance = allowance
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._deadlines: list[tuple[float, Callable[[], None]]] = []
        self._children: dict[int, Callable[[int], None]] = {}
        self._forgotten: set[int] = set()  # since events were last asked for
        self._wakeup: tuple[int, ...] = ()
        self.running = True

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with what happened on ``fd``; also on errors and hang-ups."""
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def accept(self, listener: socket.socket, action: Callable[[socket.socket], None]) -> None:
        """Call ``action`` with each connection, until the listener is closed.

        Where there are no descriptors left, those who come wait for a moment: the listener stays
        ready, and without a pause nothing else would be done.
        """
        fd = listener.fileno()

        def ready(_: int) -> None:
            try:
                connection, _address = listener.accept()
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self.forget(fd)
                    self.after(ACCEPT_SECONDS, again)
                return
            action(connection)

        def again() -> None:
            if listener.fileno() == fd:
                self.watch(fd, READ, ready)

        listener.setblocking(False)
        self.watch(fd, READ, ready)

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; nothing if it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)
            self._forgotten.add(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` once, later."""
        self._deadlines.append((time.monotonic() + seconds, action))

    def bury_children(self) -> None:
        """Wait from now on for every child that ends, whoever it is, and block for none.

        A zombie that somebody traces is not ours yet, and a pid namespace ends when all in it are
        buried: no child of a run may be waited for by itself, and none be forgotten.
        """
        reader, writer = self._wakeup = os.pipe()
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(reader, READ, lambda _: self._bury(reader))
        os.write(writer, b"\0")  # there may be some already

    def on_end(self, pid: int, action: Callable[[int], None]) -> None:
        """Call ``action`` once with the wait status of a child, when it is buried."""
        self._children[pid] = action

    def forget_end(self, pid: int) -> None:
        """Tell nobody of the end of ``pid``."""
        self._children.pop(pid, None)

    def end(self, pid: int, status: int) -> None:
        """Somebody else buried ``pid``, and tells its wait status."""
        action = self._children.pop(pid, None)
        if action is not None:
            action(status)

    def _bury(self, reader: int) -> None:
        os.read(reader, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.end(pid, status)

    def on_exit(self, pid: int, action: Callable[[], None]) -> None:
        """Call ``action`` once when the process is over, whoever may bury it.

        Raises ProcessLookupError.
        """
        fd = os.pidfd_open(pid)

        def ended(_: int) -> None:
            self.forget(fd)
            os.close(fd)
            action()

        self.watch(fd, READ, ended)

    def run(self) -> None:
        """Serve until ``running`` is False."""
        while self.running:
            ready = self._poll.poll(self._patience())
            self._forgotten.clear()
            for fd, events in ready:
                # What a forgotten descriptor had to say is not the next one's of that number.
                handler = self._handlers.get(fd) if fd not in self._forgotten else None
                if handler is not None:
                    handler(events)
            now = time.monotonic()
            due = [item for item in self._deadlines if item[0] <= now]
            if due:
                self._deadlines = [item for item in self._deadlines if item[0] > now]
                for _, action in due:
                    action()
            if self._allowance is not None:
                self._allowance.rest()

    def close(self) -> None:
        """Bury no more children, and let go of what that takes."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in self._wakeup:
            self.forget(fd)
            os.close(fd)
        self._wakeup = ()

    def _patience(self) -> float | None:
        if not self._deadlines:
            return None
        nearest = min(deadline for deadline, _ in self._deadlines)
        return max(0.0, nearest - time.monotonic()) * 1000 + 1
