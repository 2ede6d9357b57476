"""Threads for work that would stop the event loop, shared out between people.

One person's work takes its share of the threads at most, and waits in a queue of its own; the
queues have their turns one after the other. So however much one person asks for, another's work
waits for a few steps at most.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
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


def person_at_work() -> str:
    """Whose turn the work is that is asked for here; empty where that is nobody's."""
    return _person.get()


class FairExecutor(Executor):
    """Threads for short work: people have their turns one by one.

    One person has all threads but one at most, as work may wait for a lock in the database; work
    of nobody's may have all. Each person's work is begun in the order in which it was asked for.
    Unlike ``Threads`` it may be used by any thread and any event loop.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._per_person = max(1, threads - 1)
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        # Whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = (
            OrderedDict()
        )

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do it for the person of ``working_for``. Raises RuntimeError after ``shutdown``."""
        future: Future[T] = Future()
        with self._lock:
            self._threads.submit(self._work)
            queue = self._waiting.setdefault(person_at_work(), deque())
            queue.append((future, partial(fn, *args, **kwargs)))
        return future

    def _work(self) -> None:
        """Do what may be done, until nothing is left that may."""
        done_for: str | None = None
        while True:
            with self._lock:
                if done_for is not None:
                    self._running[done_for] -= 1
                    if not self._running[done_for]:
                        del self._running[done_for]
                person = self._next_person()
                if person is None:
                    return
                queue = self._waiting.pop(person)
                future, work = queue.popleft()
                if queue:
                    self._waiting[person] = queue  # at the end
                self._running[person] += 1
            done_for = person
            _do(future, work)

    def _next_person(self) -> str | None:
        for person in self._waiting:
            if not person or self._running[person] < self._per_person:
                return person
        return None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work, and wait for what was asked for; there is nothing to cancel."""
        self._threads.shutdown(wait)


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Threads:
    """A number of threads, of which each person has ``per_person`` at most. For one event loop."""

    def __init__(self, threads: int, per_person: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._per_person = per_person
        self._running: Counter[str] = Counter()
        # Work that has not begun, by its result.
        self._asked: dict[asyncio.Future[Any], Callable[[], Any]] = {}
        # Whose turn is next comes first. One result may wait in several queues.
        self._waiting: OrderedDict[str, deque[asyncio.Future[Any]]] = OrderedDict()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do ``work`` in a thread, for the person of ``working_for``."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked[result] = work
        self._queue().append(result)
        self._start()
        return result

    def join(self, result: asyncio.Future[Any]) -> None:
        """Let work that ``do`` was asked for be that of the person of ``working_for`` too.

        It waits for the first turn that one of its people has, so the length of one queue is
        nothing to the others.
        """
        if result not in self._asked:
            return  # It has begun.
        queue = self._queue()
        if result not in queue:
            queue.append(result)
            self._start()

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
        while results := [result for result in self._asked if not result.done()]:
            await asyncio.wait(results)
        await asyncio.to_thread(self._executor.shutdown)

    def _queue(self) -> deque[asyncio.Future[Any]]:
        return self._waiting.setdefault(_person.get(), deque())

    def _start(self) -> None:
        while self._free and (person := self._next()) is not None:
            queue = self._waiting.pop(person)
            result = queue.popleft()
            if queue:
                self._waiting[person] = queue  # at the end
            work = self._asked.pop(result, None)
            if work is None or result.cancelled():
                continue
            self._free -= 1
            self._running[person] += 1
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._executor, work)
            done.add_done_callback(partial(self._end, person, result))

    def _next(self) -> str | None:
        return next((it for it in self._waiting if self._running[it] < self._per_person), None)

    def _end(self, person: str, result: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        self._free += 1
        self._running[person] -= 1
        if not self._running[person]:
            del self._running[person]
        error = done.exception()
        if result.done():  # Nobody waits for it: the event loop is being closed.
            pass
        elif error is not None:
            result.set_exception(error)
        else:
            result.set_result(done.result())
        self._start()
