"""What the server does unasked: tasks that go on for as long as it runs, and errands.

No failure is silent. A task that meets what nobody expected says so in the log and begins again;
one that the server cannot be without ends the server in order, and the next start finds everything
as it is. ``troubles`` is for ``/ready``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from neuro.domain.errors import PlatformError, Unavailable

log = structlog.get_logger("neuro.server")

# A timer for later is looked at again after so long: the event loop's clock drifts from UTC, and
# takes no timer for much longer.
LONGEST_TIMER = 86_400.0
# Before a task that failed begins again.
PAUSE_SECONDS = 1.0
# After so long a task that began again is well.
RECOVERED_SECONDS = 5.0

Work = Callable[[], Coroutine[Any, Any, None]]


def _nothing() -> None:
    pass


class Kept:
    """A task that goes on. ``trouble`` is a sentence while it does not."""

    def __init__(self, name: str, work: Work, end: Callable[[], None] | None) -> None:
        """``end`` ends the server where the task cannot go on; None lets the task begin again."""
        self.trouble: str | None = None
        self.is_stopped = False
        self._name = name
        self._work = work
        self._end = end
        self._task = asyncio.create_task(self._run(), name=name)

    async def stop(self) -> None:
        """End it, wherever it is."""
        self.is_stopped = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            recovery = asyncio.get_running_loop().call_later(RECOVERED_SECONDS, self._recovered)
            try:
                await self._work()
                log.error("a background task ended", task=self._name)
            except asyncio.CancelledError as error:
                if self._task.cancelling():
                    raise
                # What it waited for was cancelled, and nobody has stopped it.
                log.error("a background task failed", task=self._name, exc_info=error)
            except Exception as error:
                log.error("a background task failed", task=self._name, exc_info=error)
            finally:
                recovery.cancel()
            if self._end is not None:
                self.trouble = f"Its {self._name} failed, and the server ends; its log says why."
                self._end()
                return
            self.trouble = f"Its {self._name} failed, and begins again; the server's log says why."
            await asyncio.sleep(PAUSE_SECONDS)

    def _recovered(self) -> None:
        self.trouble = None


class Errands:
    """Short pieces of work of one part of the server."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing = asyncio.Event()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it soon, beside everything else."""
        task = asyncio.get_running_loop().create_task(work, name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def begin_until_done(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        """Do it soon, and again after ``pause`` seconds as long as it raises Unavailable.

        For what nobody says a second time: the database may be away meanwhile.
        """

        async def repeat() -> None:
            while True:
                try:
                    await work()
                    return
                except Unavailable:  # Logged where it is met.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._finishing.wait()
                            return

        self.begin(repeat())

    async def finish(self) -> None:
        """Wait for what has begun; what could not be done until now is not tried again."""
        self._finishing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End what has begun, wherever it is."""
        for task in self._tasks:
            task.cancel()
        await self.finish()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", task=self._name, exc_info=error)


class Background:
    """All of it. Each part stops what it began; ``close`` ends what is left."""

    def __init__(self, end: Callable[[], None] = _nothing) -> None:
        """``end`` ends the server in order."""
        self._end = end
        self._kept: list[Kept] = []
        self._errands: list[Errands] = []

    @property
    def troubles(self) -> list[str]:
        """A sentence for each task that does not go on now."""
        return [
            kept.trouble for kept in self._kept if kept.trouble is not None and not kept.is_stopped
        ]

    def keep(self, name: str, work: Work, *, vital: bool = False) -> Kept:
        """Do ``work`` for ever; the server ends where a ``vital`` one fails.

        ``name`` is a noun: what the log and ``/ready`` call it.
        """
        kept = Kept(name, work, self._end if vital else None)
        self._kept = [other for other in self._kept if not other.is_stopped]
        self._kept.append(kept)
        return kept

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> Kept:
        """Do ``work`` now and then. What is no fault of the program's waits for the next time."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await work()
                except PlatformError as error:  # A full disk, a damaged database: it says all.
                    log.error("a sweep failed", what=name, error=error.message)

        return self.keep(name, repeat)

    def errands(self, name: str) -> Errands:
        """For short pieces of work that are called ``name``."""
        errands = Errands(name)
        self._errands.append(errands)
        return errands

    async def close(self) -> None:
        """End all that is left."""
        for kept in self._kept:
            await kept.stop()
        for errands in self._errands:
            await errands.stop()
