"""The log streams of clients that attach to the same job, so that nothing is said twice or never.

The reference clients open a job's log and attach to it at the same moment. They print the log
until the first output comes over the attached connection, drop the log from then on, and leave when
the attached connection ends (docs/reference/wire-protocol.md#attach). With the same output on both,
measured on jobs that print while they are attached to: one in six shows lines twice, one in three
loses some. So the two connections of one client are matched, and ``streams.attach`` shares the work
out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from neuro.server.http.routes import Call

# To all other clients each of the two streams means what it says.
_CLIENTS = re.compile(r"(Neuro|Apolo)CLI/")
# The two requests come within milliseconds, in any order.
_NEAR_SECONDS = 2.0
_PATIENCE_SECONDS = 0.3
# A log that was silent for so long has told all that there is, for now.
_IDLE_SECONDS = 0.05
_LONGEST_HOLD_SECONDS = 1.0

Key = tuple[str, str, str | None, str]


class Companion:
    """One log stream of such a client.

    ``over`` is set when the client has read all of it, or has left. While it is ``muted``, the log
    goes on without being sent.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.muted = False
        self.claimed = False
        self.opened_at = self._stirred_at = _now()

    def stir(self) -> None:
        """Something was sent just now."""
        self._stirred_at = _now()

    async def caught_up(self) -> bool:
        """Wait until the log has told all that there is; False where there is always more."""
        until = _now() + _LONGEST_HOLD_SECONDS
        while not self.over.is_set() and (idle := _now() - self._stirred_at) < _IDLE_SECONDS:
            if _now() > until:
                return False
            await asyncio.sleep(_IDLE_SECONDS - idle)
        return True


class Companions:
    """All such log streams that are open."""

    def __init__(self) -> None:
        self._open: dict[Key, list[Companion]] = {}
        self._awaited: dict[Key, list[asyncio.Future[None]]] = {}

    @contextmanager
    def log(self, call: Call, job_id: str) -> Iterator[Companion | None]:
        """Around the sending of a log; None for all other clients."""
        key = _key(call, job_id)
        if key is None:
            yield None
            return
        companion = Companion()
        streams = self._open.setdefault(key, [])
        streams.append(companion)
        for future in self._awaited.pop(key, []):
            if not future.done():
                future.set_result(None)
        try:
            yield companion
        finally:
            companion.over.set()
            streams.remove(companion)
            if not streams and self._open.get(key) is streams:
                del self._open[key]

    async def of(self, call: Call, job_id: str) -> Companion | None:
        """The log stream that the client of an attach request opened with it, if it did."""
        key = _key(call, job_id)
        if key is None:
            return None
        found = self._claim(key)
        if found is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.setdefault(key, []).append(future)
            with suppress(TimeoutError):
                await asyncio.wait_for(future, _PATIENCE_SECONDS)
            if not (awaited := [f for f in self._awaited.get(key, []) if f is not future]):
                self._awaited.pop(key, None)
            else:
                self._awaited[key] = awaited
            found = self._claim(key)
        return found

    def _claim(self, key: Key) -> Companion | None:
        for companion in reversed(self._open.get(key, [])):
            if not companion.claimed and _now() - companion.opened_at < _NEAR_SECONDS:
                companion.claimed = True
                return companion
        return None


def _key(call: Call, job_id: str) -> Key | None:
    agent = call.request.headers.get("User-Agent", "")
    if not _CLIENTS.match(agent):
        return None
    return job_id, call.identity.token_id, call.request.remote, agent


def _now() -> float:
    return asyncio.get_running_loop().time()
