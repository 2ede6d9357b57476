"""Changes of bakes for their followers: streams of clients, and the supervision.

Two ways to listen, both on the event loop's thread:

* ``hub.observe(observer)``: an ``Observer`` is called, synchronously and in order of commits as
  far as one process sees them, right after a change is in the database. Its methods must be quick
  and never raise; work is started as a task.
* ``hub.subscribe(bake, attempt, ...)``: a ``Subscription`` gathers *which* things have changed and
  wakes its one reader, who reads their newest state from the database. So a slow reader costs one
  small key for each thing that changed, however often it did, and never goes back in time.

What other servers have changed comes by ``neuro.server.bakes.feed``: an ``Observer`` is told of it
by the methods that name ids only, and reads the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from neuro.domain.bakes import Attempt, Bake


def _nothing() -> None:
    pass


class Observer:
    """Hears of every bake; a base whose methods do nothing."""

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        """An attempt is there. ``bake`` comes without its graphs."""

    def attempt_changed(self, before: Attempt, after: Attempt) -> None:
        """Its result, executor or message is another."""

    def executor_attached(self, attempt: Attempt) -> None:
        """Who drives it has opened a stream (``executor=1``); it may have several."""

    def executor_detached(self, attempt: Attempt) -> None:
        """The last of these streams has ended, however that came about."""

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        """Somebody read the attempt by its id or wrote tasks of it: a sign of life."""

    def project_removed(self, project_id: str, unfinished: Sequence[Attempt]) -> None:
        """A project is gone with all its bakes; these attempts were not finished."""

    def attempt_noted(self, bake_id: str, attempt_id: str) -> None:
        """Another server has made an attempt, or changed it."""

    def touch_noted(self, attempt_id: str) -> None:
        """Another server has seen a sign of life."""

    def driver_noted(self, attempt_id: str) -> None:
        """The stream of an attempt's driver has begun or ended at another server."""

    def bake_noted(self, bake_id: str) -> None:
        """Another server has removed a bake."""

    def fell_behind(self) -> None:
        """Anything may have changed."""


@dataclass(frozen=True)
class ToRead:
    """The parts to read anew: the attempt, tasks by ``yaml_id``, the bakes that it awaits.

    ``everything``: these and all tasks, as this server does not know which have changed.
    """

    attempt: bool = False
    tasks: tuple[str, ...] = ()
    ahead: bool = False
    everything: bool = False


class Subscription:
    """Gathers what has changed of one attempt for one reader."""

    def __init__(self, bake_id: str, attempt_id: str, *, tasks: bool) -> None:
        self.bake_id = bake_id
        self.attempt_id = attempt_id
        self.wants_tasks = tasks
        self.is_removed = False
        # The bakes before it, as its reader knows them; None: it stands in no line.
        self.ahead: tuple[str, ...] | None = None
        # Whether it may have to wait: so it is until its reader knows better.
        self.is_waiting = True
        self._attempt = False
        # A dict keeps the order of first changes.
        self._tasks: dict[str, None] = {}
        self._ahead = False
        self._everything = False
        self._news = asyncio.Event()

    def attempt_changed(self) -> None:
        self._attempt = True
        self._news.set()

    def tasks_changed(self, yaml_ids: Iterable[str]) -> None:
        if self.wants_tasks:
            self._tasks.update(dict.fromkeys(yaml_ids))
            self._news.set()

    def line_moved(self) -> None:
        """Some bake has left its line: this one may have fewer before it."""
        if self.is_waiting:
            self._ahead = True
            self._news.set()

    def fell_behind(self) -> None:
        self._everything = True
        self._news.set()

    def removed(self) -> None:
        self.is_removed = True
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change; False where none came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self, tasks: int) -> ToRead:
        """The changes since the last call, with at most so many tasks."""
        ids = tuple(self._tasks)[:tasks] if len(self._tasks) > tasks else tuple(self._tasks)
        for yaml_id in ids:
            del self._tasks[yaml_id]
        changes = ToRead(self._attempt, ids, self._ahead, self._everything)
        self._attempt = self._ahead = self._everything = False
        if not self._tasks and not self.is_removed:
            self._news.clear()
        return changes


class Hub:
    """Where services tell of changes, and where those who follow them are known."""

    def __init__(self, ring: Callable[[], None] = _nothing) -> None:
        """``ring`` is called after each change that is in the database: it wakes other servers."""
        self._ring = ring
        self._observers: list[Observer] = []
        self._of_bake: dict[str, set[Subscription]] = {}
        self._drivers: dict[str, int] = {}

    def observe(self, observer: Observer) -> None:
        """Call this observer from now on."""
        self._observers.append(observer)

    def leave(self, observer: Observer) -> None:
        """Call it no more."""
        if observer in self._observers:
            self._observers.remove(observer)

    @contextmanager
    def subscribe(self, bake_id: str, attempt_id: str, *, tasks: bool) -> Iterator[Subscription]:
        """Follow an attempt from this moment; read its state only inside."""
        subscription = Subscription(bake_id, attempt_id, tasks=tasks)
        self._of_bake.setdefault(bake_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            others = self._of_bake[bake_id]
            others.discard(subscription)
            if not others:
                del self._of_bake[bake_id]

    @contextmanager
    def driving(self, attempt: Attempt) -> Iterator[None]:
        """Around the stream of who drives an attempt."""
        self._drivers[attempt.id] = self._drivers.get(attempt.id, 0) + 1
        for observer in self._observers:
            observer.executor_attached(attempt)
        try:
            yield
        finally:
            self._drivers[attempt.id] -= 1
            if not self._drivers[attempt.id]:
                del self._drivers[attempt.id]
                for observer in self._observers:
                    observer.executor_detached(attempt)

    def is_driven(self, attempt_id: str) -> bool:
        """Whether a stream of the attempt's driver is open now."""
        return attempt_id in self._drivers

    @property
    def driven(self) -> list[str]:
        """The attempts of whose drivers a stream is open now."""
        return list(self._drivers)

    # Changes of this server.

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        for observer in self._observers:
            observer.attempt_created(bake, attempt)
        self._ring()

    def attempt_changed(self, before: Attempt, after: Attempt) -> None:
        self._tell_attempt(after.bake_id, after.id)
        if after.result.is_finished:
            self._move_lines()
        for observer in self._observers:
            observer.attempt_changed(before, after)
        self._ring()

    def tasks_changed(self, bake_id: str, attempt_id: str, yaml_ids: Sequence[str]) -> None:
        self._tell_tasks(bake_id, attempt_id, yaml_ids)
        self.attempt_touched(bake_id, attempt_id)
        self._ring()

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        for observer in self._observers:
            observer.attempt_touched(bake_id, attempt_id)

    def bake_removed(self, bake_id: str) -> None:
        """End the streams of a bake that is gone."""
        self._end_streams(bake_id)
        self._ring()

    def project_removed(
        self, project_id: str, bake_ids: Sequence[str], unfinished: Sequence[Attempt]
    ) -> None:
        for bake_id in bake_ids:
            self._end_streams(bake_id)
        for observer in self._observers:
            observer.project_removed(project_id, unfinished)
        self._ring()

    def line_moved(self) -> None:
        """A bake has left the line of its group, without an end of its attempt."""
        self._move_lines()
        self._ring()

    # Changes of other servers.

    def attempt_noted(self, bake_id: str, attempt_id: str) -> None:
        self._tell_attempt(bake_id, attempt_id)
        self._move_lines()
        for observer in self._observers:
            observer.attempt_noted(bake_id, attempt_id)

    def tasks_noted(self, bake_id: str, attempt_id: str, yaml_ids: Sequence[str]) -> None:
        self._tell_tasks(bake_id, attempt_id, yaml_ids)
        self.touch_noted(bake_id, attempt_id)

    def touch_noted(self, bake_id: str, attempt_id: str) -> None:
        for observer in self._observers:
            observer.touch_noted(attempt_id)

    def driver_noted(self, attempt_id: str) -> None:
        for observer in self._observers:
            observer.driver_noted(attempt_id)

    def bake_noted(self, bake_id: str) -> None:
        self._end_streams(bake_id)
        for observer in self._observers:
            observer.bake_noted(bake_id)

    def fell_behind(self) -> None:
        """Anything may have changed: everybody has to look at everything."""
        for subscriptions in self._of_bake.values():
            for subscription in subscriptions:
                subscription.fell_behind()
        for observer in self._observers:
            observer.fell_behind()

    def _tell_attempt(self, bake_id: str, attempt_id: str) -> None:
        for subscription in self._of_bake.get(bake_id, ()):
            if subscription.attempt_id == attempt_id:
                subscription.attempt_changed()

    def _tell_tasks(self, bake_id: str, attempt_id: str, yaml_ids: Sequence[str]) -> None:
        for subscription in self._of_bake.get(bake_id, ()):
            if subscription.attempt_id == attempt_id:
                subscription.tasks_changed(yaml_ids)

    def _move_lines(self) -> None:
        for subscriptions in self._of_bake.values():
            for subscription in subscriptions:
                subscription.line_moved()

    def _end_streams(self, bake_id: str) -> None:
        for subscription in self._of_bake.get(bake_id, ()):
            subscription.removed()
        # Whoever waits for it need not any more.
        self._move_lines()
