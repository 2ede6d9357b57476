"""From the disk to an answer's body."""

from __future__ import annotations

import os
from asyncio import Task, create_task
from collections.abc import AsyncGenerator
from contextlib import suppress
from email.utils import formatdate

from aiohttp import hdrs, web

from neuro.server.http.file_answers import content_range, requested_range
from neuro.server.http.routes import Call, json_response
from neuro.server.http.streams import BYTES
from neuro.server.storage.service import OpenFile, StorageService

CHUNK_BYTES = 1 << 20


async def send_file(call: Call, service: StorageService, file: OpenFile) -> web.StreamResponse:
    """All of a file, or the range that the request asks for."""
    headers = {
        hdrs.CONTENT_TYPE: BYTES,
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.ETAG: f'"{file.version}"',
        hdrs.LAST_MODIFIED: formatdate(file.modified, usegmt=True),
        "X-Executable": "true" if file.executable else "false",
    }
    wanted = call.request.headers.get(hdrs.RANGE)
    if call.request.headers.get(hdrs.IF_RANGE, headers[hdrs.ETAG]) != headers[hdrs.ETAG]:
        wanted = None  # The file has changed since: all of it, from the beginning.
    try:
        window = requested_range(wanted, file.size)
    except ValueError:
        refusal = {"error": f"The file has {file.size} bytes, not {wanted}.", "code": "range"}
        answer = json_response(refusal, 416)
        answer.headers[hdrs.CONTENT_RANGE] = f"bytes */{file.size}"
        return answer
    first, end = window or (0, file.size)
    response = web.StreamResponse(status=206 if window else 200, headers=headers)
    if window:
        response.headers.update(content_range(first, end, file.size))
    response.content_length = end - first
    await response.prepare(call.request)
    await _write_all(response, _chunks(service, file.fd, first, end))
    return response


async def _chunks(
    service: StorageService, fd: int, first: int, end: int
) -> AsyncGenerator[bytes, None]:
    while first < end:
        chunk = await service.in_thread(os.pread, fd, min(CHUNK_BYTES, end - first), first)
        if not chunk:
            # Cut by somebody else meanwhile. The length is announced: only breaking off is honest.
            raise ConnectionAbortedError("the file became shorter while it was sent")
        first += len(chunk)
        yield chunk


async def send_batches(call: Call, batches: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """A stream of frames of unknown length."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: BYTES})
    await response.prepare(call.request)
    await _write_all(response, batches)
    return response


async def _write_all(response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]) -> None:
    # The next chunk is read from the disk while this one goes to the network.
    reading: Task[bytes | None] = create_task(_next(chunks))
    try:
        while (chunk := await reading) is not None:
            reading = create_task(_next(chunks))
            await response.write(chunk)
        await response.write_eof()
    finally:
        if not reading.done():
            with suppress(Exception):
                await reading
        await chunks.aclose()


async def _next(chunks: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(chunks, None)
