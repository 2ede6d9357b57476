"""What the engine knows of runs: a link to each that goes on, how each ended that does not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from neuro.engines.base import Event, RunRef, RunState
from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import cgroups, layout, leftovers
from neuro.engines.sandbox.ending import NOT_READY, ExitRecord
from neuro.engines.sandbox.link import Link
from neuro.engines.sandbox.states import ended, exited, started, waiting
from neuro.engines.sandbox.tidying import Tidying

RETRY_SECONDS = 1.0  # between two tries of what the server lacks descriptors for
READ_SECONDS = 60.0  # that an exit record may be out of reach before the run counts as lost

log = logging.getLogger("neuro.engine")


class Connections:
    """Connects to supervisors, and tells as events what they say. ``links`` are to live runs."""

    def __init__(
        self,
        folder: str,
        groups: cgroups.Groups,
        tidying: Tidying,
        tell: Callable[[Event], None],
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        """``renew`` makes anew what runs begin in, for one that could not. It raises nothing."""
        self.links: dict[RunRef, Link] = {}
        self._folder = folder
        self._groups = groups
        self._tidying = tidying
        self._tell = tell
        self._renew = renew
        self._settling: Counter[RunRef] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def live(self, job_id: str) -> Link | None:
        """The link to the run of a job that goes on, if one does."""
        going = [link for ref, link in self.links.items() if ref.job_id == job_id]
        return max(going, key=lambda link: link.ref.run) if going else None

    async def close(self) -> None:
        """Let go of all runs; they go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self.links.values()):
            link.close()
            link.finished()
        self.links.clear()

    async def states(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        """How runs are. One that nobody has connected to yet is taken up, and tells more."""
        ends: dict[RunRef, ExitRecord | None] = {}
        while unread := [ref for ref in refs if not (self._is_looked_after(ref) or ref in ends)]:
            # Meanwhile others may come to their end, which is to be read then.
            ends |= await asyncio.to_thread(self._ends, unread)
        found = {}
        for ref in refs:
            link, end = self.links.get(ref), ends.get(ref)
            if link is not None:
                told = started(ref, link.started, link.state), waiting(ref, link.state)
                found[ref] = RunState(started=told[0], waiting=told[1])
            elif ref in self._settling:
                found[ref] = RunState()
            elif end is not None and not end.may_begin_again:
                found[ref] = ended(ref, end)
            elif os.path.isdir(layout.run_folder(self._folder, ref.job_id, ref.run)):
                self._spawn(self.take_up(ref))
                found[ref] = RunState()
        return found

    def _is_looked_after(self, ref: RunRef) -> bool:
        return ref in self.links or ref in self._settling

    def _ends(self, refs: Collection[RunRef]) -> dict[RunRef, ExitRecord | None]:
        found: dict[RunRef, ExitRecord | None] = {}
        for ref in refs:
            try:
                found[ref] = self.record(ref)
            except OSError:  # it may be there: whoever takes the run up tries again
                found[ref] = None
        return found

    async def take_up(self, ref: RunRef) -> None:
        """Connect to a run, or tell how it ended, whenever that can be done."""
        with self.settling(ref):
            await self._take_up(ref)

    @contextmanager
    def settling(self, ref: RunRef) -> Iterator[None]:
        """While somebody finds out how a run is, and is about to tell."""
        self._settling[ref] += 1
        try:
            yield
        finally:
            self._settled(ref)

    def _settled(self, ref: RunRef) -> None:
        self._settling[ref] -= 1
        if not self._settling[ref]:
            del self._settling[ref]

    async def _take_up(self, ref: RunRef) -> None:
        is_told = False
        while True:
            try:
                if not await self.connect(ref):
                    await self._report_finished(ref)
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                if not is_told:
                    log.warning("no connection to %s yet: %s", ref.job_id, error)
                    is_told = True
                await asyncio.sleep(RETRY_SECONDS)

    async def connect(self, ref: RunRef) -> bool:
        """Put a run into ``links``; False where no supervisor listens any more.

        Raises OSError where that can be told later: it is the server that cannot connect.
        """
        folder = layout.run_folder(self._folder, ref.job_id, ref.run)
        try:
            link = await Link.open(folder, ref, self._begun, self._vanished, self._waits)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return False
        if ref in self.links:  # somebody else was quicker
            link.close()
        elif not link.over.is_set():
            self.links[ref] = link
        return True

    def record(self, ref: RunRef) -> ExitRecord | None:
        """The exit record of a run. Blocks; raises OSError where it cannot be read."""
        return layout.read_exit(layout.run_folder(self._folder, ref.job_id, ref.run))

    async def bury(
        self,
        ref: RunRef,
        *,
        until: float | None = None,
        told: Mapping[str, Any] | None = None,
        why: str | None = None,
    ) -> ExitRecord:
        """The exit record of a run whose supervisor vanished: see ``leftovers.bury``."""
        bury = partial(
            leftovers.bury, self._folder, ref, self._groups, until=until, told=told, why=why
        )
        record, left = await asyncio.to_thread(bury)
        self._tidying.begin(left)
        return record

    def _begun(self, link: Link) -> None:
        if (event := started(link.ref, link.started, link.state)) is not None:
            self._tell(event)

    def _waits(self, link: Link) -> None:
        if (event := waiting(link.ref, link.state)) is not None:
            self._tell(event)

    def _vanished(self, link: Link) -> None:
        """The connection to a supervisor ended: it said why, or its exit record must."""
        if link.record is not None:
            self._over(link, link.record)
        else:
            self._spawn(self._find_out(link))

    async def _find_out(self, link: Link) -> None:
        link.record = await self._end_of(link.ref, link.state)
        self._over(link, link.record)

    async def _end_of(self, ref: RunRef, told: dict[str, Any] | None = None) -> ExitRecord:
        """How a run ended that has no supervisor any more, as far as that is known."""
        patience = asyncio.get_running_loop().time() + READ_SECONDS
        why = None
        while True:
            try:
                record = await asyncio.to_thread(self.record, ref) if why is None else None
                return record or await self.bury(ref, told=told, why=why)
            except OSError as error:  # it may be there: nothing may be said over it at once
                log.warning("the end of %s cannot be read: %s", ref.job_id, error)
                is_over = asyncio.get_running_loop().time() > patience
                if is_over and error.errno not in EXHAUSTED:
                    why = f"the record of how the run ended cannot be read: {error.strerror}"
                await asyncio.sleep(RETRY_SECONDS)

    def _over(self, link: Link, record: ExitRecord) -> None:
        link.finished()
        if self.links.get(link.ref) is link:
            del self.links[link.ref]
        if link.started is None:  # it ended before it could say so
            self._tell_start(link.ref, record)
        if record.may_begin_again:
            self._settling[link.ref] += 1
            self._spawn(self._give_back(link.ref, record))
        else:
            self._tell(exited(link.ref, record))

    async def _report_finished(self, ref: RunRef) -> None:
        """A run that was over before anybody connected to it."""
        record = await self._end_of(ref)
        self._tell_start(ref, record)
        if record.may_begin_again:
            self._settling[ref] += 1
            await self._give_back(ref, record)
        else:
            self._tell(exited(ref, record))

    def _tell_start(self, ref: RunRef, record: ExitRecord) -> None:
        if (event := started(ref, record.started, {})) is not None:
            self._tell(event)

    async def _give_back(self, ref: RunRef, record: ExitRecord) -> None:
        """Nothing of the run has begun: take its folder away, and mend what was at fault."""
        log.warning("run %d of %s cannot begin yet: %s", ref.run, ref.job_id, record.message)
        place = layout.run_folder(self._folder, ref.job_id, ref.run)
        try:
            await asyncio.to_thread(leftovers.discard, self._folder, place)
            if record.cause == NOT_READY:  # new berths make no room on a volume of the run's own
                await self._renew()
        finally:  # the job waits for it, whatever goes wrong here
            self._tell(exited(ref, record))
            self._settled(ref)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
