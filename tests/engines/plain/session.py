"""Sessions and connections of the plain engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from neuro.engines.base import Channel, InputState, LogChunk
from tests.engines.plain import supervisor

_CHANNELS = {supervisor.OUTPUT: Channel.STDOUT, supervisor.ERRORS: Channel.STDERR}
_PORTION = 1 << 16


class _Session:
    """What is common: frames to and from the supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.input = InputState()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PORTION):
            await self._send(supervisor.INPUT, data[start : start + _PORTION])

    async def write_eof(self) -> None:
        await self._send(supervisor.INPUT_END)

    async def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        await self._send(supervisor.RESIZE, json.dumps(size).encode())

    async def _send(self, kind: int, data: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self._writer.write(supervisor.FRAME.pack(kind, len(data)) + data)
            await self._writer.drain()

    async def _frame(self) -> tuple[int, bytes] | None:
        try:
            head = await self._reader.readexactly(supervisor.FRAME.size)
            kind, size = supervisor.FRAME.unpack(head)
            data = await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            return None
        if kind == supervisor.INPUT_STATE:
            self.input = InputState(**json.loads(data))
        return kind, data


class ExecSession(_Session):
    """A process of its own beside the run's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._kept: deque[tuple[int, bytes]] = deque()
        self._code: int | None = None
        self._is_over = False

    async def read(self) -> tuple[int, bytes] | None:
        while True:
            while not self._kept and not self._is_over:
                await self._advance()
            if not self._kept:
                return None
            item = self._kept.popleft()
            if item[0] != Channel.STDIN or not self._is_over:  # else there is no input any more
                return item

    async def wait(self) -> int | None:
        while not self._is_over:
            await self._advance()
        return self._code

    async def close(self) -> None:
        self._writer.close()

    async def _advance(self) -> None:
        frame = await self._frame()
        if frame is None:
            self._is_over = True
        elif frame[0] == supervisor.EXIT:
            self._code = int(frame[1])
            self._is_over = True
        elif frame[0] == supervisor.INPUT_STATE:
            self._kept.append((Channel.STDIN, b""))
        else:
            self._kept.append((_CHANNELS[frame[0]], frame[1]))


class AttachSession(_Session):
    """A connection to the main process: its output is read from the log."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        taken: int,
        output: AsyncGenerator[LogChunk, None] | None,
        code: Callable[[], Awaitable[int | None]],
    ) -> None:
        super().__init__(reader, writer)
        self.input = InputState(taken)
        self._output = output
        self._code = code
        self._ready: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(8)
        sides = [self._tell_input(), self._tell_output()]
        self._tasks = [asyncio.create_task(side) for side in sides]

    async def read(self) -> tuple[int, bytes] | None:
        return await self._ready.get()

    async def wait(self) -> int | None:
        return await self._code()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._output is not None:
            await self._output.aclose()
        self._writer.close()

    async def _tell_output(self) -> None:
        if self._output is not None:
            async for chunk in self._output:
                await self._ready.put((Channel.STDOUT, chunk.data))
        else:
            await self._code()
        await self._ready.put(None)

    async def _tell_input(self) -> None:
        while (frame := await self._frame()) is not None:
            if frame[0] == supervisor.INPUT_STATE:
                await self._ready.put((Channel.STDIN, b""))


class TcpConnection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 1 << 16) -> bytes:
        try:
            return await self._reader.read(limit)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    async def write_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
