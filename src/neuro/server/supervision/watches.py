"""The memory of the supervision: what is kept of each attempt between two looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from neuro.domain.bakes import Attempt


@dataclass(slots=True)
class Watch:
    """The state kept of an attempt between two checks; times are the event loop's."""

    bake_id: str
    heard_at: float
    executor_id: str | None = None
    had_stream: bool = False
    dead_job: str | None = None
    died_at: float = 0.0
    deaths: int = 0
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Come back to it no more, unless something happens."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Watches:
    """By the ids of attempts; and which attempt a job drives, or may be about to."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}
        self._attempt_of_job: dict[str, str] = {}
        # Unfinished attempts that name no executor, by their bakes.
        self._undriven: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._watches)

    def get(self, attempt_id: str) -> Watch | None:
        """What is kept of an attempt."""
        return self._watches.get(attempt_id)

    def driven_by(self, job_id: str) -> str | None:
        """The attempt that names a job as its executor."""
        return self._attempt_of_job.get(job_id)

    def undriven_of(self, bake_id: str) -> str | None:
        """The attempt of a bake that is not over and names no executor yet."""
        return self._undriven.get(bake_id)

    def of_bake(self, bake_id: str) -> list[str]:
        """The attempts of a bake."""
        return [each for each, watch in self._watches.items() if watch.bake_id == bake_id]

    def hear(self, attempt_id: str) -> Watch | None:
        """Note a sign of life of an attempt, if it is watched."""
        watch = self._watches.get(attempt_id)
        if watch is not None:
            watch.heard_at = now()
        return watch

    def hear_all(self) -> None:
        """Count everybody's silence from now on."""
        for watch in self._watches.values():
            watch.heard_at = now()

    def add(self, bake_id: str, attempt_id: str) -> None:
        """Watch an attempt of which only this is known; what was known stays."""
        self._watches.setdefault(attempt_id, Watch(bake_id, now())).heard_at = now()

    def keep(self, attempt: Attempt) -> Watch:
        """Watch an attempt as it is now."""
        watch = self._watches.get(attempt.id)
        if watch is None:
            watch = self._watches[attempt.id] = Watch(attempt.bake_id, now())
        if watch.executor_id != attempt.executor_id:
            if watch.executor_id is not None:
                self._attempt_of_job.pop(watch.executor_id, None)
            if attempt.executor_id is not None:
                self._attempt_of_job[attempt.executor_id] = attempt.id
            watch.executor_id = attempt.executor_id
        if attempt.executor_id is None and not attempt.result.is_finished:
            self._undriven[attempt.bake_id] = attempt.id
        elif self._undriven.get(attempt.bake_id) == attempt.id:
            del self._undriven[attempt.bake_id]
        return watch

    def drop(self, attempt_id: str) -> None:
        """Forget an attempt."""
        watch = self._watches.pop(attempt_id, None)
        if watch is None:
            return
        watch.stop_timer()
        if watch.executor_id is not None:
            self._attempt_of_job.pop(watch.executor_id, None)
        if self._undriven.get(watch.bake_id) == attempt_id:
            del self._undriven[watch.bake_id]

    def clear(self) -> None:
        """Forget all."""
        for watch in self._watches.values():
            watch.stop_timer()
        for kept in (self._watches, self._attempt_of_job, self._undriven):
            kept.clear()


def now() -> float:
    """The event loop's time, in seconds."""
    return asyncio.get_running_loop().time()
