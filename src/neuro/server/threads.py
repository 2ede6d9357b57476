"""Threads for work that would stop the event loop, shared out between people.

One person's work takes its share of the threads at most, and waits in a queue of its own; the
queues have their turns one after the other. So however much one person asks for, another's work
waits for a few steps at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_person: ContextVar[str] = ContextVar("person", default="")


@contextmanager
def working_for(person: str) -> Iterator[None]:
    """Whose turn the work is that is asked for inside, in this task and those made by it."""
    before = _person.set(person)
    try:
        yield
    finally:
        _person.reset(before)


@dataclass(frozen=True)
class _Work:
    do: Callable[[], Any]
    result: asyncio.Future[Any]


class Threads:
    """A number of threads, of which each person has ``per_person`` at most. For one event loop."""

    def __init__(self, threads: int, per_person: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._per_person = per_person
        self._running: Counter[str] = Counter()
        # Whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do ``work`` in a thread, for the person of ``working_for``."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(_person.get(), deque()).append(_Work(work, result))
        self._start()
        return result

    async def whole(
        self, work: Callable[[], T], release: Callable[[T], object] = lambda _: None
    ) -> T:
        """``do``, whose caller waits for the thread even where they are cancelled.

        What it works on (an open file) must not be closed under its hands. ``release`` takes back a
        result that nobody waits for any more.
        """
        future = self.do(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if future.exception() is None:
                release(future.result())
            raise

    async def close(self) -> None:
        """Wait for all work that was asked for."""
        while results := [work.result for queue in self._waiting.values() for work in queue]:
            await asyncio.wait(results)
        await asyncio.to_thread(self._executor.shutdown)

    def _start(self) -> None:
        while self._free and (person := self._next()) is not None:
            queue = self._waiting.pop(person)
            work = queue.popleft()
            if queue:
                self._waiting[person] = queue  # at the end
            if work.result.cancelled():
                continue
            self._free -= 1
            self._running[person] += 1
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._executor, work.do)
            done.add_done_callback(partial(self._end, person, work))

    def _next(self) -> str | None:
        return next((it for it in self._waiting if self._running[it] < self._per_person), None)

    def _end(self, person: str, work: _Work, done: asyncio.Future[Any]) -> None:
        self._free += 1
        self._running[person] -= 1
        if not self._running[person]:
            del self._running[person]
        error = done.exception()
        if work.result.done():  # Nobody waits for it: the event loop is being closed.
            pass
        elif error is not None:
            work.result.set_exception(error)
        else:
            work.result.set_result(done.result())
        self._start()
