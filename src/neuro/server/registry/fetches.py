"""A blob on its way from an upstream registry into the store, which many may read meanwhile.

It is hashed as it comes, and becomes a blob only when its digest is right. Its last byte is read by
nobody before that: so whoever reads gets all of a right blob, or an answer that ends too soon.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from typing import Any

from neuro.engines.images.faults import FaultKind, ImageFault, corrupt
from neuro.engines.images.registry_client import Answer, Registry
from neuro.server.registry.blobs import BlobStore, Incoming
from neuro.server.registry.names import algorithm_of

_PIECE = 1 << 20
_READ_BYTES = 1 << 20


class Fetch:
    """One blob of ``size`` bytes.

    All but ``bring`` and ``download`` are called on the event loop.
    """

    def __init__(self, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self._arrived = 0
        # For whom it comes; and its turn among the downloads, once it waits for one.
        self.people: set[str] = set()
        self.turn: asyncio.Future[Incoming] | None = None
        self._fd: int | None = None
        self._is_over = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # The side that brings it

    def bring(self, upstream: Registry, store: BlobStore) -> Incoming:
        """Bring all of it, and find its digest right; in a thread. The caller closes the result.

        Its file is opened here and not before: of all that wait for a thread, nothing is open.
        Raises ImageFault, RegistryError, Unavailable where the disk is full.
        """
        name = secrets.token_hex(16)
        store.begin(name)
        incoming = store.continue_upload(name, algorithm_of(self.digest))
        try:
            self._loop.call_soon_threadsafe(self._begin, incoming.reader())
            self.download(upstream, incoming)
        except BaseException:
            incoming.discard()
            incoming.close()
            raise
        return incoming

    def _begin(self, fd: int) -> None:
        self._fd = fd
        self._tell()

    def download(self, upstream: Registry, incoming: Incoming) -> None:
        """Let it come to an open file.

        Goes on where the upstream cuts it, as long as something comes. Raises ImageFault,
        RegistryError, Unavailable where the disk is full.
        """
        while incoming.size < self.size:
            before = incoming.size
            with upstream.blob(self.digest, before) as answer:
                if before and not answer.headers.get("Content-Range", "").startswith(
                    f"bytes {before}-"
                ):
                    raise ImageFault(
                        FaultKind.AWAY, "The registry cut a layer, and cannot go on in its middle."
                    )
                while piece := _some(answer):
                    if incoming.size + len(piece) > self.size:
                        raise corrupt("The registry sends more of a layer than there is.")
                    incoming.write([piece])
                    self._loop.call_soon_threadsafe(self._reach, incoming.size)
            if incoming.size == before:
                raise ImageFault(FaultKind.AWAY, "The registry sends nothing of a layer.")
        incoming.finish(self.digest)

    def end(self, error: BaseException | None = None) -> None:
        """It is a blob, or it came to nothing."""
        self._is_over, self._error = True, error
        self._tell()

    def close(self) -> None:
        """Let go of the file; whoever reads has a descriptor of their own."""
        if self._fd is not None:
            os.close(self._fd)

    def _reach(self, size: int) -> None:
        self._arrived = size
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # The side that reads

    async def begun(self) -> int | None:
        """A descriptor to read it from, for the caller to close; None where it is a blob already.

        Raises why it came to nothing.
        """
        while self._fd is None and not self._is_over:
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        return None if self._is_over or self._fd is None else os.dup(self._fd)

    async def piece(self, in_thread: Callable[..., Any], fd: int, offset: int) -> bytes:
        """Some bytes from ``offset`` on, once they are there; nothing at its end.

        Raises why it came to nothing.
        """
        while True:
            if self._error is not None:
                raise self._error
            end = self.size if self._is_over else min(self._arrived, self.size - 1)
            if offset < end or self._is_over:
                break
            await self._changed.wait()
        found: bytes = await in_thread(os.pread, fd, min(_READ_BYTES, end - offset), offset)
        return found

    async def whole(self) -> None:
        """Wait until it is a blob. Raises why it came to nothing."""
        while not self._is_over:
            await self._changed.wait()
        if self._error is not None:
            raise self._error


def _some(answer: Answer) -> bytes:
    """Some bytes of an answer; nothing at its end, and where the network cuts it."""
    try:
        return answer.read(_PIECE)
    except OSError:  # a timeout, an error of TLS, a host that is gone: all of it is a cut
        return b""
