"""One forwarded TCP connection: a WebSocket and a connection into a job, joined."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WSCloseCode, web

from neuro.engines.base import Connection
from neuro.server.http.streams import binary_messages

# With this protocol an empty message is the end of one direction (as a TCP FIN is), and the other
# goes on. Clients without it never send one: there the end of either is the end of both.
HALF_CLOSE_PROTOCOL = "half-close.neu.ro"
_AFTER_THE_END = b"Data came after the end of this direction."


async def join(socket: web.WebSocketResponse, connection: Connection) -> None:
    """Carry bytes both ways until both sides have ended, or one has gone."""
    halves = socket.ws_protocol == HALF_CLOSE_PROTOCOL
    client_ended = asyncio.Event()
    outward = asyncio.create_task(_from_job(socket, connection, halves=halves))
    inward = asyncio.create_task(_to_job(socket, connection, client_ended))
    try:
        await asyncio.wait((outward, inward), return_when=asyncio.FIRST_COMPLETED)
        if halves and not inward.done():
            # The client is still read: its pings are answered, and that it leaves is noticed.
            ended = asyncio.create_task(client_ended.wait())
            await asyncio.wait((ended, inward), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
    finally:
        for task in (outward, inward):
            task.cancel()
        results = await asyncio.gather(outward, inward, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result


async def _from_job(socket: web.WebSocketResponse, connection: Connection, *, halves: bool) -> None:
    with suppress(ConnectionError):
        while data := await connection.read():
            await socket.send_bytes(data)
        if halves:
            await socket.send_bytes(b"")


async def _to_job(
    socket: web.WebSocketResponse, connection: Connection, ended: asyncio.Event
) -> None:
    with suppress(ConnectionError):
        async for data in binary_messages(socket):
            if data and ended.is_set():
                await socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=_AFTER_THE_END)
                return
            if data:
                await connection.write(data)
            elif socket.ws_protocol == HALF_CLOSE_PROTOCOL and not ended.is_set():
                ended.set()
                await connection.write_eof()
