"""A network between client and server that can be told to break off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.storage.server import StorageServer


class Proxy:
    """Forwards connections; cuts those through which more than a number of bytes has gone."""

    def __init__(self, server: StorageServer) -> None:
        self._server_port = server.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._limits: dict[str, int | None] = {"up": None, "down": None}
        self._times = 0
        self._refuses_after_cut = False
        self.cuts = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake an accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut_uploads_after(self, count: int, *, times: int) -> None:
        self._limits = {"up": count, "down": None}
        self._times = times

    def cut_downloads_after(self, count: int, *, times: int) -> None:
        self._limits = {"up": None, "down": count}
        self._times = times

    @contextmanager
    def no_more_after_first_cut(self) -> Iterator[None]:
        """The network is gone for good after it broke off once; clients do not wait for it."""
        from neuro.client.storage import transfer

        tries, transfer.TRIES = transfer.TRIES, 1
        self._refuses_after_cut = True
        try:
            yield
        finally:
            transfer.TRIES = tries
            self._refuses_after_cut = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refuses_after_cut and self.cuts:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for way, source, target in (("up", client, server), ("down", server, client)):
                    threading.Thread(
                        target=self._forward, args=(way, source, target), daemon=True
                    ).start()

    def _forward(self, way: str, source: socket.socket, target: socket.socket) -> None:
        count = 0
        with suppress(OSError):
            while data := source.recv(65536):
                count += len(data)
                if self._cuts(way, count):
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _cuts(self, way: str, count: int) -> bool:
        limit = self._limits[way]
        with self._lock:
            if limit is None or count <= limit or self._times == 0:
                return False
            self._times -= 1
            self.cuts += 1
            return True
