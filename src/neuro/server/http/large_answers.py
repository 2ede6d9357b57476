"""Answers that are large and whole: they are sent in pieces, as fast as their caller reads them.

The framework takes an answer for given when its handler is through, and keeps all of it in memory
until it has been read. So what is large is sent while the request still counts for its caller, who
can have so many bytes of such answers at once and no more.
"""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from neuro.server.access.identity import Identity
from neuro.server.http.bodies import PACE
from neuro.server.http.budgets import BUDGETS

SMALL = 64 << 10  # bytes that a connection keeps without anybody's waiting for it
_PIECE = 64 << 10


async def send_if_large(
    request: web.Request, answer: web.StreamResponse, caller: Identity | None, address: str
) -> web.StreamResponse:
    """Send an answer that is large; the others are left to the framework.

    Raises TooManyRequests where a caller has too much that they have not read, ConnectionError
    where nobody reads for the application's ``Pace``.
    """
    body = answer.body if isinstance(answer, web.Response) else None
    if not isinstance(body, bytes | bytearray) or len(body) <= SMALL:
        return answer
    if request.method == hdrs.METH_HEAD:
        return answer
    with request.app[BUDGETS].unread(caller, address, len(body)):
        sent = web.StreamResponse(
            status=answer.status, reason=answer.reason, headers=answer.headers
        )
        if answer.keep_alive is False:
            sent.force_close()
        sent.content_length = len(body)
        await sent.prepare(request)
        rest = memoryview(body)
        while rest:
            await _write(request, sent, bytes(rest[:_PIECE]))
            rest = rest[_PIECE:]
        await sent.write_eof()
        return sent


async def _write(request: web.Request, answer: web.StreamResponse, piece: bytes) -> None:
    try:
        async with asyncio.timeout(request.app[PACE].stall_seconds):
            await answer.write(piece)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("nobody reads the answer") from None
