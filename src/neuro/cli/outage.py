"""Waiting for a server that is away: the same for every command that goes on for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import PlatformError, TooManyRequests, Unavailable

T = TypeVar("T")

# How long a lost server is waited for, as the original command line does (seconds).
PATIENCE = 15 * 60.0
# A connection that breaks is said only once a server is away for that long (seconds): it may have
# been ended because the person may not have it any more, which the next try tells.
QUIET = 0.5
# Between two tries, where the server does not ask for more (seconds).
PAUSE, LONGEST_PAUSE = 1.0, 30.0


def _nothing(_: str) -> None:
    """Somebody else says it."""


class Outage:
    """How long a command's server has been away. Threads may share one: it is said once.

    A server is away where it cannot be reached, where it is busy or starts (502, 503, 429), and
    where one that stands before it says so.
    """

    def __init__(
        self,
        say: Callable[[str], None] = _nothing,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``say`` tells the person, once in each outage."""
        self._say = say
        self._clock = clock
        self._lock = Lock()
        self._since: float | None = None
        self._is_said = False

    def lost(self, error: PlatformError) -> float:
        """The server is away: how many seconds to wait until the next try.

        Raises ``error`` where no waiting helps, and where there was enough of it.
        """
        if not isinstance(error, Unavailable | TooManyRequests):
            raise error
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since, self._is_said = now, False
            if now - self._since > PATIENCE:
                raise error
            is_brief = isinstance(error, ServerUnreachable) and now - self._since < QUIET
            says = not self._is_said and not is_brief
            self._is_said |= says
        if says:
            self._say(_sentence(error))
        return min(max(error.retry_after or 0.0, PAUSE), LONGEST_PAUSE)

    def say(self, sentence: str) -> None:
        """Tell the person what being away has cost."""
        self._say(sentence)

    def over(self) -> bool:
        """The server has answered; whether it had been away."""
        with self._lock:
            was_away, self._since = self._since is not None, None
        return was_away

    def insist(self, call: Callable[[], T]) -> T:
        """The result of a call, which is repeated for as long as the server is away."""
        while True:
            try:
                result = call()
            except PlatformError as error:
                time.sleep(self.lost(error))
            else:
                self.over()
                return result


def _sentence(error: PlatformError) -> str:
    if isinstance(error, ServerUnreachable):
        return "The server does not answer; waiting for it…"
    return f"{str(error).strip()} Waiting for the server…"
