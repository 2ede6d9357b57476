"""A connection to a supervisor, seen from the supervisor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from neuro.engines.sandbox import wire
from neuro.engines.sandbox.loop import READ, WRITE, Loop

_FULL = 1 << 18  # bytes waiting for a slow reader before its source is paused


class Client:
    """Frames in, frames out, with back-pressure both ways.

    ``on_frame`` takes what comes, ``on_close`` is called once at the end, ``on_room`` when what
    waited for a slow reader is gone.
    """

    def __init__(
        self, loop: Loop, connection: socket.socket, on_frame: Callable[[Client, int, bytes], None]
    ) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.on_frame = on_frame
        self.on_close: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.follow: int | None = None
        self.open = True
        self._loop = loop
        self._frames = wire.Frames()
        self._waiting = bytearray()
        self._newest = b""
        self._reading = True
        self._last = False
        self._watch()

    @property
    def full(self) -> bool:
        """Whether the reader is behind, or takes no more: send nothing until ``on_room``."""
        return self._last or len(self._waiting) >= _FULL

    @property
    def idle(self) -> bool:
        """Whether everything sent has left."""
        return not self._waiting

    def send(self, message: bytes) -> None:
        """Send one frame, now or when the reader is ready. Nothing after the end."""
        if not self.open or self._last:
            return
        message, self._newest = self._newest + message, b""
        if not self._waiting:
            try:
                sent = self.connection.send(message)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._unheard()
                return
            message = message[sent:]
        if message:
            self._waiting += message
            self._watch()

    def send_newest(self, message: bytes) -> None:
        """Send a frame that makes the last one of its kind old: a slow reader gets only this."""
        if self._waiting:
            self._newest = message
        else:
            self.send(message)

    def finish(self) -> None:
        """Close once all has been sent."""
        if self._newest:
            self.send(b"")
        self._last = True
        if not self._waiting:
            self.close()

    def read_on(self, wanted: bool) -> None:
        """Pause or resume taking frames."""
        if self._reading != wanted:
            self._reading = wanted
            self._watch()

    def close(self) -> None:
        """End the connection."""
        if not self.open:
            return
        self.open = False
        self._loop.forget(self.connection.fileno())
        self.connection.close()
        if self.on_close is not None:
            self.on_close()

    def _unheard(self) -> None:
        """The other end is gone. What it said before, perhaps to stop, still counts."""
        self._last = True
        self._newest = b""
        self._waiting.clear()
        if self._reading:
            self._watch()  # the connection closes where it is read to its end
        else:
            self.close()

    def _watch(self) -> None:
        if self.open:
            events = (READ if self._reading else 0) | (WRITE if self._waiting else 0)
            self._loop.watch(self.connection.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._waiting:
            self._flush()
        if not self.open:
            return
        if events & READ and self._reading:
            self._take()
        elif events & ~(READ | WRITE):  # gone, while we were not reading
            self.close()

    def _flush(self) -> None:
        try:
            sent = self.connection.send(self._waiting)
        except BlockingIOError:
            return
        except OSError:
            self._unheard()
            return
        del self._waiting[:sent]
        if not self._waiting and self._newest:
            self.send(b"")
        if self._waiting or not self.open:
            return
        self._watch()
        if self._last:
            self.close()
        elif self.on_room is not None:
            self.on_room()

    def _take(self) -> None:
        try:
            data = self.connection.recv(1 << 16)
            messages = self._frames.feed(data) if data else []
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, messages = b"", []
        if not data:
            self.close()
            return
        for kind, payload in messages:
            if self.open:
                self.on_frame(self, kind, payload)


class Feed:
    """Writes to a descriptor that may be slow, in order and without blocking.

    ``blocked`` is told when the descriptor takes no more (watch it and pause the source) and when
    everything was passed on. Then call ``resume``. ``taken`` counts the bytes that were passed on,
    ``closed`` says that nobody will ever read more: ``on_change`` is called when either changes.
    """

    def __init__(
        self,
        fd: int,
        blocked: Callable[[bool], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.taken = 0
        self.closed = False
        self._fd = fd
        self._blocked = blocked
        self._on_change = on_change
        self._pending = b""
        self._stuck = False
        self._on_end: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Pass ``data`` on, at once or later."""
        if not self.closed:
            self._pending += data
            self.resume()

    def end(self, action: Callable[[], None]) -> None:
        """Call ``action`` when everything was passed on."""
        self._on_end = action
        self.resume()

    def resume(self) -> None:
        """Try again: the descriptor takes data now, or never will."""
        before = self.taken
        try:
            while self._pending:
                written = os.write(self._fd, self._pending)
                self.taken += written
                self._pending = self._pending[written:]
        except BlockingIOError:
            if not self._stuck:
                self._stuck = True
                self._blocked(True)
            if self.taken > before:
                self._on_change()
            return
        except OSError:
            self._pending = b""
            self.closed = True
        if self._stuck:
            self._stuck = False
            self._blocked(False)
        if self._on_end is not None:
            action, self._on_end = self._on_end, None
            action()
        if self.closed or self.taken > before:
            self._on_change()

    def abandon(self) -> None:
        """The reader has gone, as the descriptor says though nothing was written."""
        if not self.closed:
            self._pending = b""
            self.closed = True
            self.resume()
