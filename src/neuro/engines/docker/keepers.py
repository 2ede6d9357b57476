"""The engine's side of the forker: start it, have keepers made, start it again when it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import msgspec

from neuro.engines.base import EngineFault, NotReady
from neuro.engines.docker import forker
from neuro.engines.docker.order import Order

_PATIENCE = 20.0  # seconds until it is ready, and until a keeper has its run


class Keepers:
    """Makes keepers. One forker at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Start the forker. Raises EngineFault."""
        async with self._turn:
            try:
                await self._spawn()
            except (OSError, TimeoutError) as error:
                raise EngineFault(f"the process that starts jobs failed at once: {error}") from None

    async def start(self, order: Order) -> None:
        """Give a run to a keeper, unless it has one. Raises NotReady with the reason."""
        try:
            answer = await self._ask(order)
        except (OSError, TimeoutError) as error:
            raise NotReady(str(error)) from error
        if answer not in (forker.STARTED, forker.EXISTS):
            raise NotReady(answer.decode() or "the process that starts jobs vanished")

    async def close(self) -> None:
        """Let the forker go; the keepers stay."""
        async with self._turn:
            await self._end()

    async def _ask(self, order: Order) -> bytes:
        reader, writer = os.pipe()
        try:
            try:
                await self._hand_over(order, writer)
            finally:
                os.close(writer)
            async with asyncio.timeout(_PATIENCE):
                await _readable(reader)
            return os.read(reader, 4096)
        finally:
            os.close(reader)

    async def _hand_over(self, order: Order, answer: int) -> None:
        file = os.memfd_create("order")
        try:
            content = memoryview(msgspec.json.encode(order))
            while content:
                content = content[os.write(file, content) :]
            async with self._turn:
                try:
                    self._send(file, answer)
                except OSError:
                    await self._spawn()
                    self._send(file, answer)
        finally:
            os.close(file)

    def _send(self, order: int, answer: int) -> None:
        if self._channel is None:
            raise BrokenPipeError
        socket.send_fds(self._channel, [b"o"], [order, answer])

    async def _spawn(self) -> None:
        await self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-B", "-m", forker.__name__, self._folder, str(theirs.fileno())]

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
                env={},
            )

        try:
            self._process = await asyncio.to_thread(launch)
        finally:
            theirs.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                await _readable(ours.fileno())
            if ours.recv(16) != forker.READY:
                raise OSError(0, "it ended")
        except BaseException:
            ours.close()
            raise
        self._channel = ours

    async def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
