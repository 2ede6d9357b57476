"""How much processor time a supervisor may take for its run.

A run makes its supervisor work: by what it writes, most of all. That work is in no control group of
the run's, whose limit would hold up a stop and a terminal as well. So the supervisor bounds it.
"""

from __future__ import annotations

import time

_SHARE = 0.5  # of the run's own cores
_LEAST = 0.1  # cores
_BURST = 2.0  # seconds of processor time in one go: more than all but the longest outputs take
LONGEST_PAUSE = 0.05  # seconds: a stop waits no longer


class Allowance:
    """Processor time that grows with the clock, up to ``burst`` seconds of it."""

    def __init__(self, cores: float, burst: float = _BURST) -> None:
        self._cores = cores
        self._burst = burst
        self._left = burst
        self._at, self._used = time.monotonic(), time.process_time()

    @classmethod
    def of_run(cls, cpu: float) -> Allowance:
        """What the supervisor of a run with ``cpu`` cores has."""
        return cls(max(_LEAST, cpu * _SHARE))

    def pause(self, now: float, used: float) -> float:
        """Seconds to do nothing for; ``now`` and ``used`` are what the two clocks say."""
        earned = (now - self._at) * self._cores
        self._left = min(self._burst, self._left + earned) - (used - self._used)
        self._at, self._used = now, used
        return min(LONGEST_PAUSE, max(0.0, -self._left / self._cores))

    def rest(self) -> None:
        """Do nothing for as long as this process has taken too much."""
        pause = self.pause(time.monotonic(), time.process_time())
        if pause:
            time.sleep(pause)
