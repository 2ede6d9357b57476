"""Engines without machines: one that does at once what is asked, and one that has every trouble.

They are what the server's own part is tested with, where the point is what an engine may answer
and when. That real runs behave so is for the tests of the real engines.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from random import Random

from neuro.engines.base import (
    Event,
    ExitCause,
    Exited,
    NotReady,
    RunRef,
    RunSpec,
    RunState,
    Started,
)


class MemoryEngine:
    """Runs commands ``exit CODE`` and ``wait`` (until it is stopped) that need no time.

    It outlives the servers that use it, as real runs do: the next one calls ``adopt``.
    """

    def __init__(self) -> None:
        self.states: dict[RunRef, RunState] = {}
        self.specs: dict[RunRef, RunSpec] = {}
        # How often each run was begun; more than once is a fault of the engine's or the caller's.
        self.begun: dict[RunRef, int] = {}
        self._events: deque[Event] = deque()
        self._told = asyncio.Event()

    @property
    def live(self) -> list[RunSpec]:
        """What runs now."""
        return [self.specs[ref] for ref, state in self.states.items() if state.exited is None]

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        self._events.clear()  # all that they tell is in the states
        jobs = {ref.job_id for ref in known}
        self.states = {ref: one for ref, one in self.states.items() if ref.job_id in jobs}
        return {ref: self.states[ref] for ref in known if ref in self.states}

    async def events(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._told.clear()
            await self._told.wait()

    async def start(self, spec: RunSpec) -> None:
        ref = RunRef(spec.job_id, spec.run)
        if ref in self.states:
            return
        self.begun[ref] = self.begun.get(ref, 0) + 1
        self.specs[ref] = spec
        started = Started(ref=ref, at=datetime.now(UTC))
        self.states[ref] = RunState(started=started)
        self.tell(started)
        if spec.argv[0] == "exit":
            self.end(ref, int(spec.argv[1]))

    async def stop(self, ref: RunRef, grace: float) -> bool:
        if ref not in self.states:
            return False
        if self.states[ref].exited is None:
            self.end(ref, 143)
        return True

    def end(self, ref: RunRef, code: int) -> None:
        """End a run that runs."""
        exited = Exited(
            ref=ref,
            at=datetime.now(UTC),
            exit_code=code,
            cause=ExitCause.ERROR if code else ExitCause.COMPLETED,
        )
        self.states[ref] = RunState(started=self.states[ref].started, exited=exited)
        self.tell(exited)

    def tell(self, event: Event) -> None:
        """Let whoever reads the events have one more."""
        self._events.append(event)
        self._told.set()


class TroubledEngine(MemoryEngine):
    """The same with every trouble that the protocol allows, by the choices of ``random``.

    What it is asked may take a while, fail before, after or long before it is done; what it stops
    may end later; events come late, twice, those of different jobs in any order; and the stream of
    events breaks off.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._later: dict[RunRef, asyncio.Task[None]] = {}

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        await asyncio.gather(*self._later.values())  # what a server that is gone had asked for
        return await super().adopt(known)

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
            # Before anything is lost: what was taken and not passed on stands there again.
            if self._random.random() < 0.1:
                self._events.appendleft(event)
                raise ConnectionResetError("the stream of events broke off")
            yield event
            if self._random.random() < 0.3:
                self._events.append(event)  # behind whatever happened to its job meanwhile

    def tell(self, event: Event) -> None:
        later = [
            place for place, one in enumerate(self._events) if one.ref.job_id == event.ref.job_id
        ]
        first = later[-1] + 1 if later else 0
        self._events.insert(self._random.randint(first, len(self._events)), event)
        self._told.set()

    async def _trouble(self, what: str) -> None:
        for _ in range(self._random.choice([0, 0, 1, 5])):
            await asyncio.sleep(0)
        if self._random.random() < 0.3:
            kind = self._random.choice([NotReady, OSError, RuntimeError, TimeoutError])
            raise kind(f"the engine failed at: {what}")
