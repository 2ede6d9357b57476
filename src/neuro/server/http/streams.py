"""Answers that are written piece by piece: NDJSON, raw bytes, WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from aiohttp import WSMsgType, web

from neuro.domain.errors import PlatformError, StorageFault
from neuro.server.http.routes import Call

NDJSON = "application/x-ndjson"
BYTES = "application/octet-stream"
WEBSOCKET = "websocket"

HEARTBEAT_SECONDS = 30.0
# Clients refuse messages over 4 MiB; they send small ones (keystrokes, chunks of a copy).
MAX_MESSAGE_BYTES = 4 << 20


async def ndjson(call: Call, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Stream lines of JSON. An error after the first line becomes a last line with "error"."""
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    iterator = aiter(lines)
    first = await anext(iterator, None)
    await response.prepare(call.request)
    try:
        if first is not None:
            await response.write(first + b"\n")
        async for line in iterator:
            await response.write(line + b"\n")
    except PlatformError as error:
        body: dict[str, object] = {"error": error.message, "code": error.code}
        if isinstance(error, StorageFault):
            body["errno"] = error.errno
        await response.write(msgspec.json.encode(body) + b"\n")
    await response.write_eof()
    return response


async def websocket(call: Call, *, protocols: tuple[str, ...] = ()) -> web.WebSocketResponse:
    """Accept a WebSocket. All that can be refused must be refused before."""
    socket = web.WebSocketResponse(
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
