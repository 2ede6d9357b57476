"""Sessions and connections as the engine hands them out."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator

from neuro.engines.base import Channel, InputState, LogChunk
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
        # What a client may have on its way fits in: it must be heard while the job does not read.
        writer.transport.set_write_buffer_limits(high=_BUFFER)
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

    def __init__(self, connection: Wire, taken: int = 0) -> None:
        self._wire = connection
        self.input = InputState(taken)

    def _hear(self, kind: int, payload: bytes) -> bool:
        """Take what is said of the input; False where the frame says something else."""
        if kind == wire.INPUT_TAKEN:
            self.input = InputState(wire.OFFSET.unpack(payload)[0], self.input.closed)
        elif kind == wire.INPUT_CLOSED:
            self.input = InputState(self.input.taken, closed=True)
        else:
            return False
        return True

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
        while self._output or await self._advance(until_output=True):
            if self._output:
                item = self._output.popleft()
                if item[0] != Channel.STDIN or not self._over:  # else there is no input any more
                    return item
        return None

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
            elif self._hear(kind, payload):
                self._output.append((Channel.STDIN, b""))
            elif kind == wire.CODE:
                self._code = json.loads(payload)["code"]
            return True


class AttachSession(_Input):
    """The run's main process: its log from now on, and the way to its input."""

    def __init__(
        self,
        connection: Wire,
        link: Link,
        output: AsyncIterator[LogChunk] | None,
        *,
        stdin: bool,
        taken: int,
    ) -> None:
        super().__init__(connection, taken)
        self._link = link
        self._output = output
        self._stdin = stdin
        self._next: dict[str, asyncio.Task[tuple[int, bytes] | None]] = {}

    async def read(self) -> tuple[int, bytes] | None:
        # The output is in the log, and the input's state comes over the connection.
        sources = {"output": self._read_output}
        if self._stdin and not self.input.closed:
            sources["input"] = self._read_input
        for name, source in sources.items():
            if name not in self._next:
                self._next[name] = asyncio.ensure_future(source())
        await asyncio.wait(self._next.values(), return_when=asyncio.FIRST_COMPLETED)
        name = "input" if "input" in self._next and self._next["input"].done() else "output"
        return self._next.pop(name).result()

    async def _read_output(self) -> tuple[int, bytes] | None:
        if self._output is None:
            await self._link.over.wait()
            return None
        try:
            return Channel.STDOUT, (await anext(self._output)).data
        except StopAsyncIteration:
            return None

    async def _read_input(self) -> tuple[int, bytes]:
        while (message := await self._wire.receive()) is not None:
            if self._hear(*message):
                return Channel.STDIN, b""
        self.input = InputState(self.input.taken, closed=True)
        return Channel.STDIN, b""

    async def write(self, data: bytes) -> None:
        if self._stdin:
            await super().write(data)

    async def write_eof(self) -> None:
        if self._stdin:
            await super().write_eof()

    async def wait(self) -> int | None:
        await self._link.over.wait()
        return self._link.record.exit_code if self._link.record else None

    async def close(self) -> None:
        for task in self._next.values():
            task.cancel()
        await asyncio.gather(*self._next.values(), return_exceptions=True)
        await self._wire.close()
        if self._output is not None and hasattr(self._output, "aclose"):
            await self._output.aclose()


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
