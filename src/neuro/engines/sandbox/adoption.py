"""Taking over the runs of an earlier life of the server, and burying those that vanished."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from neuro.engines.base import RunRef, RunState
from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import cgroups, layout, leftovers
from neuro.engines.sandbox.connections import RETRY_SECONDS, Connections
from neuro.engines.sandbox.states import ended, started, waiting
from neuro.engines.sandbox.tidying import Tidying

ANSWER_SECONDS = 10.0  # for a supervisor of an earlier life to say how its run is
LOOK_SECONDS = 12.0  # for how all runs are, until the server goes on without some of them

log = logging.getLogger("neuro.engine")


class Adoption:
    """Finds out how each run is. One run's damage is its own: all others go on."""

    def __init__(
        self,
        folder: str,
        groups: cgroups.Groups,
        connections: Connections,
        tidying: Tidying,
        late: Callable[[Awaitable[RunState]], None],
    ) -> None:
        """``late`` waits for the state of a run that is not known with the others, and tells it."""
        self._folder = folder
        self._groups = groups
        self._connections = connections
        self._tidying = tidying
        self._late = late
        self._reasons: dict[RunRef, str] = {}  # why it is not known how a run is

    async def take_over(
        self, known: Collection[RunRef], zygote: int | None
    ) -> dict[RunRef, RunState]:
        """How the ``known`` runs are; those of other jobs are killed and removed.

        ``zygote`` is the process whose waiting supervisors stay.
        """
        jobs = {ref.job_id for ref in known}
        until = time.monotonic() + leftovers.PATIENCE
        refs = await self._runs()
        mine = [ref for ref in refs if ref.job_id in jobs]
        records, open_ones = await asyncio.to_thread(leftovers.finished, self._folder, mine)
        states = {ref: ended(ref, record) for ref, record in records.items()}
        unknown = [ref for ref in refs if ref.job_id not in jobs]
        found, _ = await asyncio.gather(
            asyncio.gather(*(self._take_one(ref, until) for ref in open_ones)),
            asyncio.gather(*(self._destroy(ref, until) for ref in unknown)),
        )
        states.update(zip(open_ones, found, strict=True))
        late = [ref for ref, state in states.items() if state.trouble is not None]
        try:
            self._tidying.begin(await asyncio.to_thread(self._sweep, jobs, late, zygote))
        except OSError as error:
            log.warning("what belongs to no job stays until the next start: %s", error)
        return {ref: state for ref, state in states.items() if ref in set(known)}

    def _sweep(
        self, jobs: set[str], late: Collection[RunRef], zygote: int | None
    ) -> list[cgroups.Group]:
        told = {ref: link.state for ref, link in self._connections.links.items()}
        for ref in late:
            place = layout.run_folder(self._folder, ref.job_id, ref.run)
            told[ref] = layout.read_state(f"{place}/{layout.STATE}") or {}
        going = {layout.berth_of(state, ref.job_id, ref.run) for ref, state in told.items()}
        return leftovers.sweep(self._folder, self._groups, known=jobs, going=going, zygote=zygote)

    async def _runs(self) -> list[RunRef]:
        while True:
            try:
                return await asyncio.to_thread(leftovers.runs, self._folder)
            except OSError as error:  # a run that is not found would be begun again, or be lost
                log.warning("the runs of before cannot be found yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _take_one(self, ref: RunRef, until: float) -> RunState:
        finding = asyncio.ensure_future(self._find(ref, until))
        done, _ = await asyncio.wait({finding}, timeout=LOOK_SECONDS)
        if done:
            return finding.result()
        # What it lacks may be what the other runs keep, such as descriptors: the server must go on.
        self._late(finding)
        return RunState(trouble=self._reasons.get(ref, "it is not known yet how the run is"))

    async def _find(self, ref: RunRef, until: float) -> RunState:
        """How a run is, however long the server lacks what it takes to know."""
        with self._connections.settling(ref):
            return await self._found(ref, until)

    async def _found(self, ref: RunRef, until: float) -> RunState:
        why: str | None = None
        while True:
            try:
                if why is not None:
                    return ended(ref, leftovers.lost(self._folder, ref, why))
                return await self._state(ref, until)
            except TimeoutError:
                why = "the process that looks after the run does not answer"
            except Exception as error:  # its damage is its own: all others go on
                if isinstance(error, OSError) and error.errno in EXHAUSTED:
                    if ref not in self._reasons:
                        log.warning("run %d of %s is not taken over yet: %s", *_named(ref), error)
                    self._reasons[ref] = error.strerror or str(error)
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    log.exception("run %d of %s cannot be taken over", *_named(ref))
                    why = f"the run cannot be taken over: {error}"

    async def _state(self, ref: RunRef, until: float) -> RunState:
        async with asyncio.timeout(ANSWER_SECONDS):
            connected = await self._connections.connect(ref)
        if connected:
            link = self._connections.links.get(ref)
            if link is None:
                return RunState()
            told = started(ref, link.started, link.state), waiting(ref, link.state)
            return RunState(started=told[0], waiting=told[1])
        # It may have ended just now.
        record = await asyncio.to_thread(self._connections.record, ref)
        if record is None:
            record = await self._connections.bury(ref, until=until)
        return ended(ref, record)

    async def _destroy(self, ref: RunRef, until: float) -> None:
        """Kill a run that nobody knows. What fails is that run's: the sweep kills its group."""
        try:
            if await asyncio.to_thread(self._connections.record, ref) is None:
                async with asyncio.timeout_at(_loop_time(until)):
                    if await self._connections.connect(ref):
                        link = self._connections.links[ref]
                        link.stop(0)
                        await link.over.wait()
        except TimeoutError:
            if ref in self._connections.links:
                self._connections.links.pop(ref).close()
        except Exception:
            log.exception("run %d of %s cannot be stopped", *_named(ref))
        try:
            destroy = partial(leftovers.destroy_run, self._folder, ref, self._groups, until=until)
            self._tidying.begin(await asyncio.to_thread(destroy))
        except Exception:
            log.exception("run %d of %s cannot be removed", *_named(ref))


def _loop_time(moment: float) -> float:
    """A time of ``time.monotonic`` as the event loop counts."""
    return asyncio.get_running_loop().time() + moment - time.monotonic()


def _named(ref: RunRef) -> tuple[int, str]:
    return ref.run, ref.job_id
