"""From a request's body to the disk: the body is read while a thread writes what came before."""

from __future__ import annotations

from asyncio import CancelledError, Task, create_task
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Protocol

from aiohttp import web

from neuro.domain.errors import PlatformError
from neuro.server.http.bodies import pieces

# A change of threads costs as much as writing half a megabyte: in batches of 4 MiB, 1 GiB took
# 0.9 s, in batches of 1 MiB 1.1 s. Many uploads at once share a bounded memory.
BATCH_BYTES = 4 << 20
LEAST_BATCH_BYTES = 256 << 10
ALL_BATCHES_BYTES = 64 << 20


class Taker(Protocol):
    """Whose threads write. ``receiving`` is how many bodies are coming in now."""

    receiving: int

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Coroutine[Any, Any, Any]:
        """Do blocking work; a caller that is cancelled waits for it all the same."""
        ...


async def _batches(request: web.Request, taker: Taker) -> AsyncIterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    async with aclosing(pieces(request)) as body:
        try:
            async for piece in body:
                batch.append(piece)
                size += len(piece)
                share = ALL_BATCHES_BYTES // taker.receiving
                if size >= max(LEAST_BATCH_BYTES, min(BATCH_BYTES, share)):
                    yield batch
                    batch, size = [], 0
        except (PlatformError, CancelledError):
            # What has come of a body that breaks off is written: the rest can be sent alone.
            yield batch
            raise
    if batch:
        yield batch


async def pour(request: web.Request, taker: Taker, take: Callable[[list[bytes]], object]) -> None:
    """Give the body to ``take`` in a thread, in order, reading on while it works."""
    writing: Task[object] | None = None
    taker.receiving += 1
    try:
        async for batch in _batches(request, taker):
            if writing is not None:
                await writing
            writing = create_task(taker.in_thread(take, batch))
        if writing is not None:
            await writing
    finally:
        taker.receiving -= 1
        # The thread must be done before anybody closes its file.
        if writing is not None and not writing.done():
            with suppress(Exception):
                await writing
