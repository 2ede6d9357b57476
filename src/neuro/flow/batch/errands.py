"""Work that an executor has under way on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Work = Coroutine[Any, Any, None]


class Errands:
    """Tasks of the event loop; ``failed`` is called with what one of them raises."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: set[asyncio.Task[None]] = set()

    def start(self, work: Work) -> asyncio.Task[None]:
        """Have something done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def owe(self, work: Work) -> asyncio.Task[None]:
        """Have something done that ``settle`` waits for."""
        task = self.start(work)
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)
        return task

    async def settle(self) -> None:
        """Wait until nothing is owed. Raises what one of these raises."""
        while self._owed:
            await asyncio.gather(*self._owed)

    async def close(self) -> None:
        """Stop all that is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
