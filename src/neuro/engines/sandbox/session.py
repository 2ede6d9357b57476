"""Sessions and connections as the engine hands them out."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator

from neuro.engines.base import Channel
from neuro.engines.sandbox import wire
from neuro.engines.sandbox.link import Link
from neuro.engines.sandbox.taking import take_streams

_PORTION = 1 << 16
_BUFFER = 1 << 20
_CHANNELS = {wire.OUTPUT: Channel.STDOUT, wire.ERROR_OUTPUT: Channel.STDERR}


class Wire:
    """Frames over a connection to a supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = wire.Frames()
        self._ready: deque[tuple[int, bytes]] = deque()

    @classmethod
    async def open(cls, connection: socket.socket, first: bytes) -> Wire:
        """Take over ``connection`` and say what it is for."""
        reader, writer = await take_streams(connection, _BUFFER)
        opened = cls(reader, writer)
        await opened.send(first)
        return opened

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame, or None at the end."""
        while not self._ready:
            try:
                data = await self._reader.read(_BUFFER)
            except OSError:
                data = b""
            if not data:
                return None
            self._ready.extend(self._frames.feed(data))
        return self._ready.popleft()

    async def send(self, message: bytes) -> None:
        """Send one frame, waiting for a slow reader. Ignored after the end."""
        try:
            self._writer.write(message)
            await self._writer.drain()
        except (OSError, RuntimeError):
            pass

    async def close(self) -> None:
        """End the connection."""
        self._writer.transport.abort()


class _Input:
    """What attach and exec have in common: the way in."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PORTION):
            await self._wire.send(wire.frame(wire.INPUT, data[start : start + _PORTION]))

    async def write_eof(self) -> None:
        await self._wire.send(wire.frame(wire.INPUT_END))

    async def resize(self, width: int, height: int) -> None:
        size = {"width": max(1, min(width, 0xFFFF)), "height": max(1, min(height, 0xFFFF))}
        await self._wire.send(wire.json_frame(wire.RESIZE, size))


class ExecSession(_Input):
    """A process of its own inside the run."""

    def __init__(self, connection: Wire) -> None:
        super().__init__(connection)
        self._output: deque[tuple[int, bytes]] = deque()
        self._code: int | None = None
        self._over = False
        self._turn = asyncio.Lock()

    async def read(self) -> tuple[int, bytes] | None:
        while not self._output:
            if not await self._advance(until_output=True):
                break
        return self._output.popleft() if self._output else None

    async def wait(self) -> int | None:
        while await self._advance(until_output=False):
            pass
        return self._code

    async def close(self) -> None:
        await self._wire.close()

    async def _advance(self, *, until_output: bool) -> bool:
        """Take one frame; False when there are no more."""
        async with self._turn:
            if self._over or (until_output and self._output):
                return not self._over
            message = await self._wire.receive()
            if message is None:
                self._over = True
                return False
            kind, payload = message
            if kind in _CHANNELS:
                self._output.append((_CHANNELS[kind], payload))
            elif kind == wire.CODE:
                self._code = json.loads(payload)["code"]
            return True


class AttachSession(_Input):
    """The run's main process: its log from now on, and its terminal's keyboard."""

    def __init__(
        self, connection: Wire, link: Link, output: AsyncIterator[bytes] | None, *, stdin: bool
    ) -> None:
        super().__init__(connection)
        self._link = link
        self._output = output
        self._stdin = stdin

    async def read(self) -> tuple[int, bytes] | None:
        if self._output is None:
            await self._link.over.wait()
            return None
        try:
            return Channel.STDOUT, await anext(self._output)
        except StopAsyncIteration:
            return None

    async def write(self, data: bytes) -> None:
        if self._stdin:
            await super().write(data)

    async def write_eof(self) -> None:
        if self._stdin:
            await super().write_eof()

    async def wait(self) -> int | None:
        await self._link.over.wait()
        return self._link.record["exit_code"] if self._link.record else None

    async def close(self) -> None:
        await self._wire.close()
        if self._output is not None and hasattr(self._output, "aclose"):
            try:
                await self._output.aclose()
            except RuntimeError:  # a reader waits in it: that one ends with its own task
                pass


class TcpConnection:
    """A TCP connection into a run."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 1 << 16) -> bytes:
        try:
            return await self._reader.read(limit)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
