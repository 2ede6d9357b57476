"""The streams that are open, and whose they are: they go on for as long as their caller may read.

A stream never ends by itself, so it is ended here: when the server stops, when its token's lifetime
is over, when the token is revoked or its user removed, and when what its caller was allowed is
allowed no more. It ends like one whose client has left: its task is cancelled and the connection
closes, without the end that a whole answer has. A client that comes back then is told by the next
request why it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from aiohttp import web

from neuro.domain.errors import PlatformError
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.background import LONGEST_TIMER


def _now() -> datetime:
    return datetime.now(UTC)


class OpenStream:
    """One stream, in the task that handles it."""

    def __init__(self, task: asyncio.Task[object], now: Callable[[], datetime]) -> None:
        self.caller: Identity | None = None
        self._task = task
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def belongs_to(self, caller: Identity) -> Identity:
        """Say whose it is as soon as that is known; it will not outlive the caller's token.

        What it does has to ask the identity that is returned.
        """
        self.caller = caller.noted()
        self._look()
        return self.caller

    def have(self, grants: Grants) -> None:
        """Say what the caller holds from now on: it ends unless that is enough for it."""
        if self.caller is not None:
            self.caller.grants = grants
            self._look()

    def _look(self) -> None:
        """End it where its time has come, or else look again at the next moment when it may."""
        assert self.caller is not None
        assert self.caller.allowed is not None
        self.ended()
        now = self._now()
        self.caller.grants = self.caller.grants.at(now)
        until = self.caller.expires_at
        if (until is not None and until <= now) or not self.caller.allowed.holds(
            self.caller.grants
        ):
            self.end()
            return
        moments = [it for it in (until, self.caller.grants.until) if it is not None]
        if moments:
            # The event loop's clock is another one: when the timer is due, look again.
            left = min((min(moments) - now).total_seconds(), LONGEST_TIMER)
            self._timer = asyncio.get_running_loop().call_later(left, self._look)

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
        self._is_stopping = False

    @contextmanager
    def running(self) -> Iterator[OpenStream]:
        """Around the handling of a stream, in its own task."""
        task = asyncio.current_task()
        assert task is not None
        stream = OpenStream(task, self._now)
        self._open.add(stream)
        if self._is_stopping:
            stream.end()  # Its request came while the others were ended.
        try:
            yield stream
        finally:
            self._open.discard(stream)
            stream.ended()

    def tokens(self) -> list[tuple[str, str]]:
        """(user, token id) of each that is open."""
        callers = (stream.caller for stream in self._open)
        return [(caller.user, caller.token_id) for caller in callers if caller is not None]

    def end_those_of(self, user: str, token_id: str | None) -> None:
        """End the streams that were opened with a token, or with any of a user's."""
        for stream in list(self._open):
            caller = stream.caller
            if caller is None or caller.user != user:
                continue
            if token_id is None or caller.token_id == token_id:
                stream.end()

    async def grants_changed(
        self, users: Collection[str] | None, grants_of: Callable[[str], Awaitable[Grants]]
    ) -> None:
        """Ask again for the streams of users (None: of everybody) whose grants have changed."""
        callers = {stream.caller.user for stream in self._open if stream.caller is not None}
        for user in callers if users is None else callers & set(users):
            try:
                grants = await grants_of(user)
            except PlatformError:
                grants = Grants(())  # What cannot be asked is not allowed.
            for stream in list(self._open):
                if stream.caller is not None and stream.caller.user == user:
                    stream.have(grants)

    async def end_all(self, _app: web.Application) -> None:
        """Clients see their connections close, and come back if they want to."""
        self._is_stopping = True
        for stream in list(self._open):
            stream.end()
