"""Connected sockets that become the event loop's.

uvloop closes the descriptor of a connection that ends before it was taken over to the end, and does
not tell the socket object, which would close the same number again when it is collected: by then it
may be that of another connection, or of a file.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_BUFFER = 1 << 16


async def take(
    connection: socket.socket, make: Callable[[], asyncio.BaseProtocol]
) -> asyncio.Transport:
    """Serve a connected socket with a protocol. The socket object is not to be used again."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    is_unix = connection.family == socket.AF_UNIX
    create = loop.create_unix_connection if is_unix else loop.create_connection
    try:
        transport, _ = await create(make, sock=connection)
    except BaseException:
        _forget(connection, loop)
        raise
    if transport.is_closing():
        _forget(connection, loop)
    return transport


async def take_streams(
    connection: socket.socket, limit: int = _BUFFER
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Read from and write to a connected socket."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = await take(connection, lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _forget(connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    if not isinstance(loop, asyncio.BaseEventLoop):  # Python's own loops close the object itself
        connection.detach()
