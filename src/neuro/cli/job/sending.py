"""What goes from here into a job besides a terminal's keys: piped input, and the window's size."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from threading import Semaphore, Thread
from typing import Any

from neuro.cli.context import FOREVER, Context
from neuro.cli.outage import PAUSE, Outage
from neuro.client.sessions import JobSession
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import NotFound, PlatformError, TooManyRequests, Unavailable

_PORTION = 1 << 16
_STDIN = 0


class _StandardInput:
    """Standard input in portions. A thread reads it: a file cannot be waited for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._portions: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = Semaphore(2)
        Thread(target=self._read, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """Some bytes, or b"" at the end."""
        portion = await self._portions.get()
        self._wanted.release()
        return portion

    def _read(self) -> None:
        data = b"-"
        while data:
            self._wanted.acquire()
            try:
                data = os.read(_STDIN, _PORTION)
            except OSError:
                data = b""
            with suppress(RuntimeError):  # The loop has ended, and nobody wants it.
                self._loop.call_soon_threadsafe(self._portions.put_nowait, data)


def _drop_input() -> None:
    """Nobody wants the rest: whoever writes it is told so, by SIGPIPE as when any reader ends."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)


async def _first_of(*calls: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, and end the others. Raises what went wrong in any of them."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _listen(session: JobSession) -> None:
    while await session.read() is not None:
        pass


async def send_input(session: JobSession) -> None:
    """Pass standard input on until it ends, or nobody reads on. ``read`` must go on meanwhile."""
    source = _StandardInput()

    async def send() -> None:
        while portion := await source.read():
            await session.write(portion)
        await session.write_eof()
        await session.until_input_closed()

    with suppress(BrokenPipeError, ServerUnreachable):
        await _first_of(send(), session.until_input_closed())
    _drop_input()


class Upstream:
    """Sends to a job whose output is followed elsewhere, in a thread of its own.

    What of the input a job has not taken is kept here, so that it goes on exactly there after the
    server was away.
    """

    def __init__(self, context: Context, job_id: str, *, sends_input: bool, window: bool) -> None:
        """``window``: send this terminal's size, first and whenever it changes."""
        self._context = context
        self._job_id = job_id
        self._sends_input = sends_input
        self._window = window
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resized: asyncio.Event | None = None
        self._was_lost = False
        self._kept = bytearray()
        self._start = 0  # the offset in the input of the first byte that is kept
        self._is_unsure = False  # something was on its way, and nobody counts
        self._ended = False

    def start(self) -> None:
        """Begin. To be called in the main thread: only there a signal can be asked for."""
        if self._window:
            signal.signal(signal.SIGWINCH, lambda *_: self._tell_resized())
        Thread(target=lambda: asyncio.run(self._serve()), name="upstream", daemon=True).start()

    def _tell_resized(self) -> None:
        if self._loop is not None and self._resized is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._resized.set)

    async def _serve(self) -> None:
        self._resized = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        source = _StandardInput() if self._sends_input else None
        try:
            await self._serve_on(source)
        except NotFound:
            pass  # The job is over.
        except (Unavailable, TooManyRequests):
            self._tell_lost()
        except PlatformError as error:
            self._context.out.warning(f"Cannot send input to the job: {error}")

    async def _serve_on(self, source: _StandardInput | None) -> None:
        outage = Outage()  # Whoever shows the output says that the server is away.
        while True:
            try:
                async with (
                    self._context.aio_client(timeout=FOREVER) as client,
                    client.jobs.attach(
                        self._job_id, tty=self._window, stdin=source is not None, output=False
                    ) as session,
                ):
                    outage.over()
                    await self._converse(session, source)
                pause = PAUSE
            except PlatformError as error:
                pause = outage.lost(error)
            self._was_lost = True
            await asyncio.sleep(pause)

    def _tell_lost(self) -> None:
        if self._sends_input and (self._kept or self._is_unsure):
            self._context.out.warning(
                "The connection was lost while input was being sent: the job got only a part of it."
            )

    async def _converse(self, session: JobSession, source: _StandardInput | None) -> None:
        sides = [_listen(session)]
        if source is not None:
            sides.append(self._send(session, source))
        if self._window:
            sides.append(self._tell_size(session))
        await _first_of(*sides)

    async def _send(self, session: JobSession, source: _StandardInput) -> None:
        taken = await session.resume()
        if session.counts_input:
            self._forget(taken)
        if (session.input_closed or self._is_unsure) and self._was_lost and not session.is_over:
            self._tell_lost()
        with suppress(BrokenPipeError):
            await _first_of(self._send_rest(session, source), session.until_input_closed())
        if not session.is_over:
            self._kept.clear()
            _drop_input()
        await asyncio.Event().wait()  # The connection ends with the job.

    async def _send_rest(self, session: JobSession, source: _StandardInput) -> None:
        await self._write_kept(session)
        while not self._ended:
            portion = await source.read()
            if session.counts_input:
                self._forget(session.taken)
            self._kept += portion
            self._ended = not portion
            await self._write_kept(session, portion)
        await session.write_eof()
        await session.until_input_closed()

    async def _write_kept(self, session: JobSession, portion: bytes | None = None) -> None:
        """Send all that is kept, or the last portion of it."""
        data = bytes(self._kept) if portion is None else portion
        if not session.counts_input:
            # A server that does not tell what the job has taken: what is on its way counts as
            # taken, for it may not be sent twice.
            self._forget(self._start + len(self._kept))
            self._is_unsure = bool(data)
        if data:
            await session.write(data)
        self._is_unsure = False

    def _forget(self, taken: int) -> None:
        if taken > self._start:
            del self._kept[: taken - self._start]
            self._start = taken

    async def _tell_size(self, session: JobSession) -> None:
        assert self._resized is not None
        while True:
            self._resized.clear()
            with suppress(OSError):
                size = os.get_terminal_size(sys.stdout.fileno())
                await session.resize(size.columns, size.lines)
            await self._resized.wait()
