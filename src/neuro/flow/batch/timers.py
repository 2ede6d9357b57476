"""When a bake's state is to be woken, and for what. Pure: times are passed in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import NamedTuple

from neuro.flow.batch.phases import Phase
from neuro.flow.model import FullId


class Timer(NamedTuple):
    """The end of a try's time limit or of a pause after it, or (None) of the bake's life span.

    It has no effect where the try, or its phase, is another by then.
    """

    id: FullId | None
    number: int = 0
    phase: Phase = Phase.ACTIVE


class Timers:
    """The timers still to come; of one time, in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Timer]] = []
        self._serial = 0

    @property
    def next(self) -> datetime | None:
        """When the first of them is due."""
        return self._heap[0][0] if self._heap else None

    def set(self, moment: datetime, timer: Timer) -> None:
        """Have something due at some time."""
        self._serial += 1
        heappush(self._heap, (moment, self._serial, timer))

    def due(self, now: datetime) -> Iterator[Timer]:
        """Remove and return the timers that are due, those set meanwhile included."""
        while self._heap and self._heap[0][0] <= now:
            yield heappop(self._heap)[2]
