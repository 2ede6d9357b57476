"""The streams that are open, and whose they are: they go on for as long as their caller may read.

A stream never ends by itself, so it is ended here: when the server stops, when its token's lifetime
is over, and when the token is revoked or its user removed. It ends like one whose client has left:
its task is cancelled and the connection closes, without the end that a whole answer has. A client
that comes back then is told by the next request why it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from aiohttp import web

from neuro.server.access.identity import Identity


def _now() -> datetime:
    return datetime.now(UTC)


class OpenStream:
    """One stream, in the task that handles it."""

    def __init__(self, task: asyncio.Task[object], now: Callable[[], datetime]) -> None:
        self.caller: Identity | None = None
        self._task = task
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def belongs_to(self, caller: Identity | None) -> None:
        """Say whose it is as soon as that is known; it will not outlive the caller's token."""
        self.caller = caller
        if caller is not None and caller.expires_at is not None:
            self._end_at(caller.expires_at)

    def _end_at(self, moment: datetime) -> None:
        left = (moment - self._now()).total_seconds()
        if left <= 0:
            self.end()
        else:
            # The event loop's clock is another one: when the timer is due, look again.
            self._timer = asyncio.get_running_loop().call_later(left, self._end_at, moment)

    def end(self) -> None:
        """Close its connection."""
        self._task.cancel()

    def ended(self) -> None:
        """It has ended, however that came about."""
        if self._timer is not None:
            self._timer.cancel()


class Streams:
    """All streams that are open now."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._now = now
        self._open: set[OpenStream] = set()

    @contextmanager
    def running(self) -> Iterator[OpenStream]:
        """Around the handling of a stream, in its own task."""
        task = asyncio.current_task()
        assert task is not None
        stream = OpenStream(task, self._now)
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)
            stream.ended()

    def end_those_of(self, user: str, token_id: str | None) -> None:
        """End the streams that were opened with a token, or with any of a user's."""
        for stream in list(self._open):
            caller = stream.caller
            if caller is None or caller.user != user:
                continue
            if token_id is None or caller.token_id == token_id:
                stream.end()

    async def end_all(self, _app: web.Application) -> None:
        """Clients see their connections close, and come back if they want to."""
        for stream in list(self._open):
            stream.end()
