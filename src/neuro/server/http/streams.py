"""Answers that are written piece by piece: NDJSON, raw bytes, WebSockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress

import msgspec
from aiohttp import WSMsgType, web

from neuro.domain.errors import PlatformError, StorageFault
from neuro.server.http.routes import Call

NDJSON = "application/x-ndjson"
BYTES = "application/octet-stream"
WEBSOCKET = "websocket"

NDJSON_BLOCK = 64 << 10

HEARTBEAT_SECONDS = 30.0
CLOSE_SECONDS = 10.0
# A reader whose machine is gone says nothing: the system would wait a quarter of an hour for it.
LOST_MILLISECONDS = 60_000
# Clients refuse messages over 4 MiB; they send small ones (keystrokes, chunks of a copy).
MAX_MESSAGE_BYTES = 4 << 20


Headers = Callable[[], Mapping[str, str]]


async def ndjson(
    call: Call, lines: AsyncIterator[bytes], headers: Headers = dict
) -> web.StreamResponse:
    """Stream lines of JSON, some kilobytes at a time: a write a line costs more than the line.

    An error after the beginning becomes a last line with "error". ``headers`` gives more of them
    once the first line is there.
    """
    iterator = aiter(lines)
    first = await anext(iterator, None)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, **headers()})
    await response.prepare(call.request)
    block = bytearray() if first is None else bytearray(first + b"\n")
    try:
        async for line in iterator:
            block += line
            block += b"\n"
            if len(block) >= NDJSON_BLOCK:
                await response.write(bytes(block))
                block.clear()
    except PlatformError as error:
        block += _error_line(error)
    await response.write(bytes(block))
    await response.write_eof()
    return response


async def json_array(
    call: Call,
    items: AsyncGenerator[bytes],
    headers: Headers = dict,
    *,
    head: bytes = b"[",
    tail: bytes = b"]",
) -> web.StreamResponse:
    """Stream one array of JSON, some kilobytes at a time; ``head`` and ``tail`` surround it.

    An error within the first of them is answered as such. A later one ends the connection: nothing
    that could be added would be JSON.
    """
    block = bytearray(head)
    response: web.StreamResponse | None = None
    between = b""
    async with aclosing(items):
        async for item in items:
            block += between
            block += item
            between = b","
            if len(block) >= NDJSON_BLOCK:
                if response is None:
                    kind = {"Content-Type": "application/json"}
                    response = web.StreamResponse(headers={**kind, **headers()})
                    await response.prepare(call.request)
                await response.write(bytes(block))
                block.clear()
    block += tail
    if response is None:
        return web.Response(body=bytes(block), content_type="application/json", headers=headers())
    await response.write(bytes(block))
    await response.write_eof()
    return response


async def live_ndjson(call: Call, blocks: AsyncGenerator[bytes]) -> web.StreamResponse:
    """Stream blocks of whole lines of JSON, each as soon as it is there.

    Errors as in ``ndjson``.
    """
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    _notice_loss(call.request)
    async with aclosing(blocks):
        first = await anext(blocks, b"")
        await response.prepare(call.request)
        await response.write(first)
        try:
            async for block in blocks:
                await response.write(block)
        except PlatformError as error:
            await response.write(_error_line(error))
    await response.write_eof()
    return response


def _notice_loss(request: web.Request) -> None:
    """Have the connection end where what is sent is not acknowledged for a minute."""
    connection = request.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MILLISECONDS)


def _error_line(error: PlatformError) -> bytes:
    body: dict[str, object] = {"error": error.message, "code": error.code}
    if isinstance(error, StorageFault):
        body["errno"] = error.errno
    return msgspec.json.encode(body) + b"\n"


async def websocket(
    call: Call, *, protocols: tuple[str, ...] = (), close_timeout: float = CLOSE_SECONDS
) -> web.WebSocketResponse:
    """Accept a WebSocket. All that can be refused must be refused before.

    ``close_timeout`` is how long closing it waits for the client's answer.
    """
    socket = web.WebSocketResponse(
        timeout=close_timeout,
        protocols=protocols,
        heartbeat=HEARTBEAT_SECONDS,
        max_msg_size=MAX_MESSAGE_BYTES,
        compress=False,
    )
    await socket.prepare(call.request)
    return socket


async def binary_messages(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """What the client sends, until it leaves; anything but binary ends the connection."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            yield message.data
        elif message.type is WSMsgType.TEXT:
            await socket.close(code=1003, message=b"Send binary messages.")
            return
