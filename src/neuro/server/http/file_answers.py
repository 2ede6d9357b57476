"""A part of a file as an answer's body, from the page cache to the socket without a copy."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, cast

from aiohttp import hdrs, web

# More than a socket takes at once.
_SEND_BYTES = 4 << 20
_READ_BYTES = 1 << 20
# Turns of the event loop in which the head of an answer leaves it.
_TURNS = 10
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Giver(Protocol):
    """Whose threads read."""

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Coroutine[Any, Any, Any]:
        """Do blocking work; a caller that is cancelled waits for it all the same."""
        ...


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The (first, behind last) bytes that a Range header asks for; None for all of the file.

    Raises ValueError for a range that the file does not have. Several ranges, and other units, are
    ignored, as HTTP allows.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        first, end = max(0, size - int(match[2])), size
    else:
        first = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
    if first >= end:
        raise ValueError(header)
    return first, end


async def send_part(
    request: web.Request, response: web.StreamResponse, giver: Giver, fd: int, first: int, end: int
) -> None:
    """Send bytes of an open file as all of an answer's body; the file stays open."""
    response.content_length = end - first
    await response.prepare(request)
    if not await _send_by_kernel(request, giver, fd, first, end):
        while first < end:
            piece = await giver.in_thread(os.pread, fd, min(_READ_BYTES, end - first), first)
            if not piece:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            first += len(piece)
            await response.write(piece)
    await response.write_eof()


async def _send_by_kernel(
    request: web.Request, giver: Giver, fd: int, first: int, end: int
) -> bool:
    """False where that cannot be done; nothing was sent then."""
    transport = request.transport
    connection = request.get_extra_info("socket")
    if transport is None or connection is None or request.get_extra_info("sslcontext"):
        return False
    for _ in range(_TURNS):
        if cast("asyncio.WriteTransport", transport).get_write_buffer_size() == 0:
            break
        await asyncio.sleep(0)
    else:
        return False
    loop = asyncio.get_running_loop()
    # The event loop lets nobody wait for a descriptor of its own. This one is the same socket.
    out = os.dup(connection.fileno())
    try:
        while first < end:
            # In a thread, as the file may have to come from the disk first.
            try:
                sent = await giver.in_thread(
                    os.sendfile, out, fd, first, min(_SEND_BYTES, end - first)
                )
            except BlockingIOError:
                await _writable(loop, out)
                continue
            if sent == 0:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            first += sent
    finally:
        os.close(out)
    return True


async def _writable(loop: asyncio.AbstractEventLoop, out: int) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(out, tell)
    try:
        await ready
    finally:
        with suppress(ValueError, OSError):
            loop.remove_writer(out)


def content_range(first: int, end: int, size: int) -> dict[str, str]:
    """The header of an answer that is a part of a file."""
    return {hdrs.CONTENT_RANGE: f"bytes {first}-{end - 1}/{size}"}
