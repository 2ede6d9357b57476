"""Brings connections from one network namespace to another, through a Unix socket.

``nsenter --net=… python -m tests.server.registry.relay PORT SOCKET`` listens on the loopback there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


def joining(connect: Connect) -> Callable[..., Awaitable[None]]:
    """A handler that joins each connection to another one."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await connect()
        await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))

    return join


async def from_socket(path: Path, port: int) -> asyncio.Server:
    """Join a Unix socket's connections to a port of the loopback here."""
    handler = joining(lambda: asyncio.open_connection("127.0.0.1", port))
    return await asyncio.start_unix_server(handler, path)


@asynccontextmanager
async def into_network(process: int, port: int, path: Path) -> AsyncIterator[None]:
    """A port of the loopback here is one of the loopback in the network of a process, too.

    ``path`` is for the socket.
    """
    here = await from_socket(path, port)
    there = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net=/proc/{process}/ns/net"),
        *(sys.executable, "-m", __name__, str(port), str(path)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert there.stdout is not None
    await there.stdout.readline()
    try:
        yield
    finally:
        there.terminate()
        await there.wait()
        here.close()


async def _serve(port: int, path: str) -> None:
    handler = joining(lambda: asyncio.open_unix_connection(path))
    server = await asyncio.start_server(handler, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
