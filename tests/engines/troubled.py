"""An engine without a machine that has every trouble which the protocol allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from random import Random

from neuro.engines.base import Event, NotReady, RunRef, RunSpec, RunState
from tests.engines.memory import MemoryEngine, pulling


class TroubledEngine(MemoryEngine):
    """One in memory with every trouble, by the choices of ``random``.

    What it is asked may take a while, fail before, after or long before it is done; what it stops
    may end later; events come late, twice and in any order; and the stream of events breaks off,
    with all that was on its way.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._later: dict[RunRef, asyncio.Task[None]] = {}

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        await asyncio.gather(*self._later.values())  # what a server that is gone had asked for
        return await super().adopt(known)

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        await self._trouble("resync")
        states = await super().resync(refs)
        await self._trouble("resync, which it knew")
        return states

    async def start(self, spec: RunSpec) -> None:
        ref = RunRef(spec.job_id, spec.run)
        if ref not in self._later:
            self._later[ref] = asyncio.create_task(self._start(spec))
            self._later[ref].add_done_callback(lambda _: self._later.pop(ref))
        late = self._later[ref]
        await self._trouble("start")
        await asyncio.shield(late)
        await self._trouble("start, which it did")

    async def _start(self, spec: RunSpec) -> None:
        self.tell(pulling(RunRef(spec.job_id, spec.run), self._random.random()))
        for _ in range(self._random.choice([0, 1, 5, 20])):
            await asyncio.sleep(0)
        await super().start(spec)

    async def stop(self, ref: RunRef, grace: float) -> bool:
        if ref in self._later:
            await asyncio.wait({self._later[ref]})
        await self._trouble("stop")
        if self._random.random() < 0.5 and ref in self.states:
            loop = asyncio.get_running_loop()
            loop.call_later(0.002, self._end_later, ref)
            return True
        known = await super().stop(ref, grace)
        await self._trouble("stop, which it did")
        return known

    def _end_later(self, ref: RunRef) -> None:
        if ref in self.states and self.states[ref].exited is None:
            self.end(ref, 143)

    async def events(self) -> AsyncIterator[Event]:
        async for event in super().events():
            if self._random.random() < 0.1:
                self._events.clear()
                raise ConnectionResetError("the stream of events broke off")
            yield event
            if self._random.random() < 0.3:
                self._events.append(event)  # behind whatever happened to its job meanwhile

    def tell(self, event: Event) -> None:
        self._events.insert(self._random.randint(0, len(self._events)), event)
        self._told.set()

    async def _trouble(self, what: str) -> None:
        for _ in range(self._random.choice([0, 0, 1, 5])):
            await asyncio.sleep(0)
        if self._random.random() < 0.3:
            kind = self._random.choice([NotReady, OSError, RuntimeError, TimeoutError])
            raise kind(f"the engine failed at: {what}")
