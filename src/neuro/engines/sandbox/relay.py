"""Connections of a run to a socket of this machine: what one says, the other one is told.

A run that builds images by a daemon of containers reaches that one so. The daemon's own socket
belongs to root of this machine, which nobody in a run is. A run that needs it no more says
``LAST_WORD`` on a connection of its own, before it lets anybody else do something: from then on
nobody gets there.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from functools import partial

from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.loop import READ, WRITE, Loop
from neuro.engines.sandbox.nesting import LAST_WORD

_PIECE = 1 << 16
_MOST = 1 << 18  # bytes that one side may be behind the other
_MOST_CONNECTIONS = 16
_GONE = select.POLLHUP | select.POLLERR


class Relay:
    """Listens at ``place``, which is user 0's of the run, for connections to ``target``."""

    def __init__(self, loop: Loop, place: str, target: str, block: Block) -> None:
        """Raises OSError."""
        self._loop = loop
        self._target = target
        self._pairs: set[_Pair] = set()
        self._refused: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(place)
            os.chmod(place, 0o600)
            block.give(place)
            self._listener.listen(_MOST_CONNECTIONS)
        except BaseException:
            self._listener.close()
            raise
        loop.accept(self._listener, self._accept)

    def close(self) -> None:
        """Cut all connections, and take no more. It may be closed again."""
        if self._listener.fileno() < 0:
            return
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        for pair in list(self._pairs):
            pair.close()
        for connection in list(self._refused):
            self._drop(connection)

    def _accept(self, connection: socket.socket) -> None:
        other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(self._pairs) >= _MOST_CONNECTIONS:
                raise ConnectionRefusedError
            other.setblocking(False)
            other.connect(self._target)
        except OSError:  # the daemon is away, or has too many to hear already
            other.close()
            self._refuse(connection)
            return
        self._pairs.add(_Pair(self._loop, connection, other, self._pairs.discard, self.close))

    def _refuse(self, connection: socket.socket) -> None:
        """End a connection when it has said something: that may be the last word."""
        if len(self._refused) >= _MOST_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._refused.add(connection)

        def ready(_: int) -> None:
            try:
                said = connection.recv(len(LAST_WORD))
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if said == LAST_WORD:
                self.close()
            else:
                self._drop(connection)

        self._loop.watch(connection.fileno(), READ, ready)

    def _drop(self, connection: socket.socket) -> None:
        self._refused.discard(connection)
        self._loop.forget(connection.fileno())
        connection.close()


class _Pair:
    """Two connections, joined until one of them says no more."""

    def __init__(
        self,
        loop: Loop,
        one: socket.socket,
        other: socket.socket,
        closed: Callable[[_Pair], None],
        last: Callable[[], None],
    ) -> None:
        """``one`` is the run's; ``last`` is called when it says the last word."""
        self._loop = loop
        self._sockets = (one, other)
        self._pending = [b"", b""]  # for each of them
        self._over = [False, False]  # whether each says no more
        self._closed = closed
        self._last = last
        self._said = b""  # by the run, as long as it may be the last word
        self._is_request = False
        for connection in self._sockets:
            connection.setblocking(False)
        self._watch()

    def close(self) -> None:
        for connection in self._sockets:
            self._loop.forget(connection.fileno())
            connection.close()
        self._closed(self)

    def _watch(self) -> None:
        for side, connection in enumerate(self._sockets):
            wanted = WRITE if self._pending[side] else 0
            if not self._over[side] and len(self._pending[1 - side]) < _MOST:
                wanted |= READ
            if wanted or not self._over[side]:
                self._loop.watch(connection.fileno(), wanted, partial(self._ready, side))
            else:
                self._loop.forget(connection.fileno())

    def _ready(self, side: int, events: int) -> None:
        if events & WRITE and self._pending[side]:
            self._write(side)
        try:
            if events & (READ | _GONE) and not self._over[side]:
                # What one that has gone leaves behind is little.
                self._read(side, to_end=bool(events & _GONE))
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._said == LAST_WORD:
            self._last()
            return
        if any(over and not self._pending[1 - one] for one, over in enumerate(self._over)):
            self.close()
        else:
            self._watch()

    def _write(self, side: int) -> None:
        try:
            sent = self._sockets[side].send(self._pending[side])
        except BlockingIOError:
            return
        except OSError:  # it has gone; what it said before is still on its way
            sent = len(self._pending[side])
        self._pending[side] = self._pending[side][sent:]

    def _read(self, side: int, *, to_end: bool) -> None:
        while True:
            piece = self._sockets[side].recv(_PIECE)
            self._pending[1 - side] += self._passed(piece) if side == 0 else piece
            self._over[side] = not piece
            if not piece or not to_end:
                return

    def _passed(self, piece: bytes) -> bytes:
        """What of a piece of the run's goes on: nothing as long as it may be the last word."""
        if self._is_request:
            return piece
        self._said += piece
        if piece and LAST_WORD.startswith(self._said):
            return b""
        self._is_request = True
        said, self._said = self._said, b""
        return said
