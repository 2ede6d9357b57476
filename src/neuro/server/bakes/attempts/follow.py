"""Following an attempt: its state, then each change, for as long as somebody listens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from functools import partial

from neuro.domain.bakes import Attempt, BakeEvent
from neuro.server.bakes.attempts import tables, turns
from neuro.server.bakes.events import Hub, Subscription, ToRead
from neuro.server.bakes.tasks import tables as task_tables
from neuro.server.database.engine import Database
from neuro.server.database.transactions import paged

# How many tasks are read, and held, at once: each may have outputs of megabytes.
PAGE = 50
HEARTBEAT_SECONDS = 15.0

Events = list[BakeEvent]


class Follower:
    """Makes the events of attempts from what the hub says has changed."""

    def __init__(self, database: Database, hub: Hub, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._database = database
        self._hub = hub
        self._heartbeat = heartbeat

    async def follow(
        self, attempt: Attempt, *, tasks: bool, executor: bool
    ) -> AsyncGenerator[Events]:
        """Events, several at once where there are; ends when the attempt is removed."""
        with ExitStack() as stack:
            # Subscribed before anything is read, so nothing falls between state and changes.
            news = stack.enter_context(
                self._hub.subscribe(attempt.bake_id, attempt.id, tasks=tasks)
            )
            if executor:
                stack.enter_context(self._hub.driving(attempt))
            state = await self._read(news, ToRead(attempt=True, ahead=True))
            if not any(event.attempt is not None for event in state):
                return  # Removed before the subscription, which will never be told so.
            yield state
            if tasks:
                async for page in self._tasks(attempt.id):
                    yield page
            yield [BakeEvent(synced=True)]
            while not news.is_removed:
                if not await news.wait(self._heartbeat):
                    yield [BakeEvent()]
                    continue
                changes = news.take(PAGE)
                state = await self._read(news, changes)
                if changes.everything and not any(event.attempt is not None for event in state):
                    return
                if state:
                    yield state
                if changes.everything and tasks:
                    async for page in self._tasks(attempt.id):
                        yield page

    async def _tasks(self, attempt_id: str) -> AsyncGenerator[Events]:
        page: Events = []
        read = partial(task_tables.page_of_tasks, attempt_id, PAGE)
        async for task in paged(self._database, PAGE, read):
            page.append(BakeEvent(task=task))
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    async def _read(self, news: Subscription, changes: ToRead) -> Events:
        """The newest state of what has changed."""
        events: Events = []
        if changes.attempt or changes.everything:
            attempt = await self._database.read(
                partial(tables.get_attempt, attempt_id=news.attempt_id)
            )
            if attempt is not None:
                events.append(BakeEvent(attempt=attempt))
        if changes.tasks:
            found = await self._database.read(
                partial(
                    task_tables.tasks_by_yaml_id,
                    attempt_id=news.attempt_id,
                    yaml_ids=changes.tasks,
                )
            )
            events += [
                BakeEvent(task=found[yaml_id]) for yaml_id in changes.tasks if yaml_id in found
            ]
        if changes.ahead or changes.everything:
            line = await self._database.read(partial(turns.ahead, attempt_id=news.attempt_id))
            news.is_waiting = bool(line)
            if line is not None:
                ahead = tuple(turn.bake_id for turn in line)
                if ahead != news.ahead:
                    news.ahead = ahead
                    events.append(BakeEvent(ahead=list(ahead)))
        return events
