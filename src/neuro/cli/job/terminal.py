"""A job's terminal in this one: raw mode, window size, the keys that detach."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from threading import Thread

from neuro.cli.context import FOREVER, Context
from neuro.cli.job.exit_code import job_exit_code
from neuro.cli.job.follow import (
    explain_end,
    has_begun,
    say_detached,
    wait_for_start,
)
from neuro.cli.job.log_copy import write_all
from neuro.cli.job.output import ATTACHED, Progress
from neuro.cli.outage import PAUSE, Outage
from neuro.client.sessions import JobSession
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import NotFound, PlatformError
from neuro.domain.jobs import Job

_CTRL_P, _CTRL_Q = b"\x10", b"\x11"


class DetachKeys:
    """Finds Ctrl-P Ctrl-Q in what is typed; a Ctrl-P is held back until the next key.

    >>> keys = DetachKeys()
    >>> keys.feed(b"ls\\x10"), keys.feed(b"\\x11"), keys.pressed
    (b'ls', b'', True)
    """

    def __init__(self) -> None:
        self.pressed = False
        self._held = b""

    def feed(self, typed: bytes) -> bytes:
        """What of ``typed`` goes to the job."""
        data, self._held = self._held + typed, b""
        before, found, _ = data.partition(_CTRL_P + _CTRL_Q)
        if found:
            self.pressed = True
            return before
        if data.endswith(_CTRL_P):
            self._held = _CTRL_P
            return data[:-1]
        return data


@contextmanager
def raw_mode(number: int) -> Iterator[None]:
    """Let every key through to the job, and put the terminal back afterwards."""
    before = termios.tcgetattr(number)
    tty.setraw(number, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@asynccontextmanager
async def _resizing(session: JobSession) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def tell() -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        with suppress(ServerUnreachable):
            await session.resize(size.columns, size.lines)

    def changed() -> None:
        task = loop.create_task(tell())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await tell()
    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@asynccontextmanager
async def _heard(session: JobSession) -> AsyncIterator[None]:
    """Read what a session without output says: how much of what was typed the job has taken."""

    async def hear() -> None:
        while await session.read() is not None:
            pass

    hearing = asyncio.ensure_future(hear())
    try:
        yield
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


@asynccontextmanager
async def _typed(number: int) -> AsyncIterator[asyncio.Queue[bytes]]:
    """What is typed, as it comes; b"" at the end of the input."""
    loop = asyncio.get_running_loop()
    keys: asyncio.Queue[bytes] = asyncio.Queue()

    def readable() -> None:
        try:
            data = os.read(number, 4096)
        except BlockingIOError:
            return
        except OSError:  # The terminal has gone.
            data = b""
        if not data:
            loop.remove_reader(number)
        keys.put_nowait(data)

    loop.add_reader(number, readable)
    try:
        yield keys
    finally:
        loop.remove_reader(number)


async def feed(session: JobSession, detach: DetachKeys | None) -> None:
    """Send what is typed until the keys to detach are pressed or the input ends."""
    async with _typed(sys.stdin.fileno()) as keys:
        while data := await keys.get():
            if detach is not None:
                data = detach.feed(data)
            if data:
                with suppress(ServerUnreachable, BrokenPipeError):
                    await session.write(data)
            if detach is not None and detach.pressed:
                return


class ShownLog:
    """Shows a job's log; where the connection was lost it goes on behind what was shown."""

    def __init__(self, context: Context, job_id: str) -> None:
        self._context = context
        self._job_id = job_id
        self._shown = 0

    async def show(self) -> None:
        """Copy the log to the terminal until the job is over, or the server leaves."""
        skip = self._shown
        client = self._context.aio_client(timeout=FOREVER)
        async with client, aclosing(client.jobs.logs(self._job_id)) as chunks:
            async for chunk in chunks:
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                write_all(1, fresh)
                self._shown += len(fresh)


async def _converse(context: Context, job_id: str, shown: ShownLog, outage: Outage) -> bool:
    """Keys to the job, its log to the screen. True: the person detached.

    The screen shows the log and not the attached stream, so that nothing is missing and nothing is
    there twice: the log begins where the job began and is as quick.
    """
    detach = DetachKeys()
    async with context.aio_client() as client:
        with raw_mode(sys.stdin.fileno()):
            try:
                async with (
                    client.jobs.attach(job_id, tty=True, stdin=True, output=False) as session,
                    _heard(session),
                    _resizing(session),
                ):
                    if outage.over():
                        context.out.note("Connected again.")
                    await _first_of(shown.show(), feed(session, detach))
            except NotFound:
                await shown.show()  # It ended before.
    return detach.pressed


async def _first_of(output: object, typing: object) -> None:
    tasks = [asyncio.ensure_future(call) for call in (output, typing)]  # type: ignore[call-overload]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for task in done:
        task.result()


def _load_aiohttp() -> None:
    # It takes 150 ms, and the job takes a while to start.
    with suppress(ImportError):
        import neuro.client.aio  # noqa: F401


def attach_terminal(
    context: Context, job: Job, *, browse: bool = False, forwards: tuple[str, ...] = ()
) -> int:
    """Wait for a terminal job's start, connect this terminal to it, return its exit code."""
    Thread(target=_load_aiohttp, daemon=True).start()
    progress = Progress(context.out)
    try:
        job = wait_for_start(context, job, progress)
    except KeyboardInterrupt:
        progress.end()
        say_detached(context, job)
        return 0
    if forwards and not job.status.is_finished:
        from neuro.cli.job.port_forward import forward_in_background

        forward_in_background(context, job.id, forwards)
    if browse and not job.status.is_finished:
        from neuro.cli.job.browse import browse as say_page

        say_page(context.out, job)
    if has_begun(job) and not context.out.quiet:
        context.out.print(ATTACHED.format(keys="Ctrl-P Ctrl-Q"))
    context.out.flush()
    return _attached(context, job)


def _attached(context: Context, job: Job) -> int:
    jobs, shown, outage = context.client.jobs, ShownLog(context, job.id), Outage(context.out.note)
    while True:
        try:
            if asyncio.run(_converse(context, job.id, shown, outage)):
                say_detached(context, job)
                return 0
            job = context.run(jobs.get(job.id))
            if job.status.is_finished:
                explain_end(context, job)
                return job_exit_code(job)
            pause = PAUSE  # The server has ended its streams, as it does when it goes down.
        except PlatformError as error:
            pause = outage.lost(error)
        time.sleep(pause)


async def converse_exec(session: JobSession) -> None:
    """A terminal program's keys and screen (``neuro exec``)."""

    async def show() -> None:
        while (piece := await session.read()) is not None:
            write_all(1, piece[1])

    with raw_mode(sys.stdin.fileno()):
        async with _resizing(session):
            showing = asyncio.ensure_future(show())
            typing = asyncio.ensure_future(feed(session, None))
            await showing
            typing.cancel()
            with suppress(asyncio.CancelledError):
                await typing
