"""What is done again and again: forgetting what is old, and mending what was left over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from neuro.server.background import Background, Kept
from neuro.server.fleet.leases import Lease, Leases

SWEEP_SECONDS = 600.0

Sweep = Callable[[], Awaitable[object]]


class Sweeps:
    """Sweeps of one server, and those that one server at a time does for all."""

    def __init__(
        self, background: Background, own: Mapping[str, Sweep], shared: Mapping[str, Sweep]
    ) -> None:
        self._background = background
        self._own = own
        self._shared = shared
        self._kept: list[Kept] = []

    async def start(self, leases: Leases) -> None:
        """Begin with its own; those of all servers begin when the lease "sweeps" is taken."""
        for what, sweep in self._own.items():
            self._background.every(SWEEP_SECONDS, what, sweep)
        await leases.keep("sweeps", self._taken, self._lost)

    async def _taken(self, lease: Lease) -> None:
        for what, sweep in self._shared.items():
            held = _while_held(lease, sweep)
            self._kept.append(self._background.every(SWEEP_SECONDS, what, held))

    async def _lost(self) -> None:
        for kept in self._kept:
            await kept.stop()
        self._kept.clear()


def _while_held(lease: Lease, sweep: Sweep) -> Sweep:
    async def work() -> None:
        if lease.is_held:
            await sweep()

    return work
