"""What stands before a server in many places: a gateway, which answers 503 while it is away."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Self

AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 30\r\nConnection: close\r\n\r\nNo server is there at present.\n"
)


class Gateway:
    """Passes connections on to a port of this machine, or ends them and answers 503.

    ``leaves_out`` is taken out of what clients send first: what an older server would not know.
    """

    def __init__(self, port: int, *, leaves_out: bytes = b"") -> None:
        self._target = port
        self._leaves_out = leaves_out
        self._is_open = True
        self._lock = Lock()
        self.has_refused = Event()  # a 503 was answered since it was closed
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._listener.close()

    def close(self) -> None:
        """End all connections, and answer 503 from now on."""
        with self._lock:
            self._is_open = False
            self.has_refused.clear()
            for pair in self._pairs:
                for side in pair:
                    with suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
            self._pairs.clear()

    def open(self) -> None:
        """Pass connections on again."""
        self._is_open = True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            first = client.recv(1 << 16)
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                with self._lock:
                    is_open = self._is_open
                    if is_open:
                        self._pairs.append((client, server))
                if not is_open:
                    client.sendall(AWAY)
                    self.has_refused.set()
                    return
                server.sendall(first.replace(self._leaves_out, b"") if self._leaves_out else first)
                Thread(target=_carry, args=(client, server), daemon=True).start()
                _carry(server, client)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
