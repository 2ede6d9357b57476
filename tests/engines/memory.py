"""Engines without machines: one that does at once what is asked, and one with a queue.

They are what the server's own part is tested with, where the point is what an engine may answer
and when. That real runs behave so is for the tests of the real engines.
"""

from __future__ import annotations

import asyncio
import os
import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from datetime import UTC, datetime

from neuro.engines.base import (
    EngineFault,
    Event,
    ExitCause,
    Exited,
    LogChunk,
    LogExtent,
    Node,
    NodesChanged,
    NotReady,
    Placement,
    RunNotFound,
    RunRef,
    RunSpec,
    RunState,
    Started,
    Volume,
    Waiting,
    WaitReason,
)
from neuro.engines.storage import Storage
from tests.engines.words import Script

BLOCK = 256 << 10


class MemoryEngine:
    """Runs commands without processes: the few words of ``tests.engines.words``.

    It pulls images below ``pulled/``, at once. Two commands of its own need no time, ``exit CODE``
    and ``wait`` (until it is stopped). It outlives the servers that use it, as real runs do: the
    next one calls ``adopt``.
    """

    name = "memory"
    placement = Placement.LOCAL
    gpu_model: str | None = None
    trouble: str | None = None
    host_address = "127.0.0.1"
    files_owner: int | None = None

    def __init__(
        self,
        *,
        log_limit: int = 1 << 30,
        storage: Storage | None = None,
        nodes: Sequence[Node] = (Node(name="memory", cpu=64.0, memory=64 << 30),),
        builds: bool = False,
    ) -> None:
        """With ``builds`` it is in the place of one that builds images."""
        self._builds = builds
        self._nodes = list(nodes)
        self._storage = storage
        self._log_limit = log_limit
        self.notices: list[str] = []
        self.states: dict[RunRef, RunState] = {}
        self.specs: dict[RunRef, RunSpec] = {}
        # How often each run was begun; more than once is a fault of the engine's or the caller's.
        self.begun: dict[RunRef, int] = {}
        self._output: dict[str, Output] = {}
        self._scripts: dict[RunRef, Script] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: deque[Event] = deque()
        self._told = asyncio.Event()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        """Runs go on without whoever used them."""

    @property
    def live(self) -> list[RunSpec]:
        """What runs now."""
        return [self.specs[ref] for ref, state in self.states.items() if state.exited is None]

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        self._events.clear()  # all that they tell is in the states
        jobs = {ref.job_id for ref in known}
        self.states = {ref: one for ref, one in self.states.items() if ref.job_id in jobs}
        return {ref: self.states[ref] for ref in known if ref in self.states}

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        return {ref: self.states[ref] for ref in refs if ref in self.states}

    async def events(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._told.clear()
            await self._told.wait()

    # Runs.

    async def start(self, spec: RunSpec) -> None:
        ref = RunRef(spec.job_id, spec.run)
        if ref in self.states:
            return
        if spec.disks:
            raise EngineFault("This engine has no disks.")
        if (spec.nesting or spec.build_cache) and not self._builds:
            raise EngineFault("This engine builds no images.")
        if spec.node and spec.node not in [node.name for node in self._nodes if node.open]:
            raise NotReady(f"{spec.node} takes no runs.")
        self.begun[ref] = self.begun.get(ref, 0) + 1
        self.specs[ref] = spec
        output = self._output.setdefault(spec.job_id, Output(self._log_limit))
        missing = [one.target for one in spec.volumes if not self._is_there(one)]
        if missing:
            self.states[ref] = RunState()
            message = f"{missing[0]} is not there to be mounted"
            self.end(ref, 126, ExitCause.CANNOT_START, message)
            return
        if spec.image.startswith("pulled/"):
            for progress in (0.0, 0.5):
                self.tell(pulling(ref, progress))
        started = Started(ref=ref, at=datetime.now(UTC), where=spec.node or "memory")
        self.states[ref] = RunState(started=started)
        output.runs += 1
        self.tell(started)
        argv = (*(spec.entrypoint or ()), *spec.argv)
        match argv:
            case ("exit", code):
                self.end(ref, int(code))
            case ("wait",):
                pass
            case _:
                self._scripts[ref] = script = Script(argv, output.add)
                task = asyncio.create_task(self._run(ref, script))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _is_there(self, volume: Volume) -> bool:
        return self._storage is not None and os.path.exists(self._storage.path_of(volume.source))

    async def _run(self, ref: RunRef, script: Script) -> None:
        code = await script.run()
        self._scripts.pop(ref, None)
        if ref in self.states:
            self.end(ref, code)

    async def stop(self, ref: RunRef, grace: float) -> bool:
        if ref not in self.states:
            return False
        if self.states[ref].exited is None:
            if ref in self._scripts:
                self._scripts[ref].terminate()
                asyncio.get_running_loop().call_later(grace, self._scripts[ref].kill)
            else:
                self.end(ref, 143)
        return True

    async def remove(self, job_id: str) -> None:
        if any(spec.job_id == job_id for spec in self.live):
            raise EngineFault(f"{job_id} is still running: stop it before it is removed")
        self.states = {ref: one for ref, one in self.states.items() if ref.job_id != job_id}
        self._output.pop(job_id, None)

    def end(
        self, ref: RunRef, code: int, cause: ExitCause | None = None, message: str | None = None
    ) -> None:
        """End a run that runs."""
        output = self._output[ref.job_id]
        exited = Exited(
            ref=ref,
            at=datetime.now(UTC),
            exit_code=code,
            cause=cause or (ExitCause.ERROR if code else ExitCause.COMPLETED),
            message=message,
            output_bytes=len(output.kept),
        )
        started = self.states[ref].started
        self.states[ref] = RunState(started=started, exited=exited)
        output.runs -= started is not None
        output.changed()
        self.tell(exited)

    def tell(self, event: Event) -> None:
        """Let whoever reads the events have one more."""
        self._events.append(event)
        self._told.set()

    # Looking in.

    async def logs(
        self, job_id: str, *, offset: int = 0, follow: bool = True, timestamps: bool = False
    ) -> AsyncGenerator[LogChunk, None]:
        output = self._output_of(job_id)
        is_first = True
        while True:
            is_live, news = output.runs > 0, output.news
            while data := output.read(offset := max(offset, output.first), BLOCK):
                end = offset + len(data)
                if timestamps:
                    data = output.stamped(data, offset, is_first)
                yield LogChunk(offset, end, data)
                offset, is_first = end, False
            if not (follow and is_live):
                return
            await news.wait()

    async def log_extent(self, job_id: str, *, since: datetime | None = None) -> LogExtent:
        output = self._output_of(job_id)
        first = output.first if since is None else output.offset_at(since)
        return LogExtent(first, output.end)

    def _output_of(self, job_id: str) -> Output:
        if job_id not in self._output:
            raise RunNotFound(job_id)
        return self._output[job_id]

    async def nodes(self) -> list[Node]:
        return self._nodes

    def offer(self, *nodes: Node) -> None:
        """Have these nodes from now on. Runs go on wherever they are."""
        self._nodes = list(nodes)
        self.tell(NodesChanged())


def pulling(ref: RunRef, progress: float) -> Waiting:
    """An image of a run is on its way."""
    return Waiting(
        ref=ref,
        at=datetime.now(UTC),
        reason=WaitReason.PULLING,
        description="The image is pulled",
        progress=progress,
    )


class Output:
    """What the runs of a job have printed; ``runs`` is how many of them go on.

    No more than ``limit`` bytes are kept, those from ``first`` on.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kept = b""
        self.first = 0
        self.runs = 0
        self.news = asyncio.Event()
        self._offsets: list[int] = []
        self._times: list[datetime] = []

    def add(self, data: bytes) -> None:
        self._offsets.append(self.end)
        self._times.append(datetime.now(UTC))
        self.kept += data
        self.first += max(0, len(self.kept) - self._limit)
        self.kept = self.kept[-self._limit :]
        self.changed()

    def changed(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def read(self, position: int, limit: int) -> bytes:
        return self.kept[position - self.first :][:limit]

    @property
    def end(self) -> int:
        return self.first + len(self.kept)

    def offset_at(self, moment: datetime) -> int:
        number = bisect_left(self._times, moment)
        return max(self.first, self._offsets[number]) if number < len(self._offsets) else self.end

    def stamped(self, data: bytes, position: int, is_first: bool) -> bytes:
        """With the time of its first byte before each line."""
        parts = []
        starts = is_first or self.kept[position - self.first - 1 :][:1] == b"\n"
        for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
            if starts:
                at = self._times[bisect_right(self._offsets, position) - 1]
                parts.append(f"{at:%Y-%m-%dT%H:%M:%S.%f}Z ".encode())
            parts.append(line)
            position += len(line)
            starts = line.endswith(b"\n")
        return b"".join(parts)


class QueueEngine(MemoryEngine):
    """One that places runs itself, a few at once, as Slurm does: the others wait in its queue."""

    placement = Placement.DELEGATED

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self._at_once = at_once
        self.queue: dict[RunRef, RunSpec] = {}

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        self.queue = {ref: spec for ref, spec in self.queue.items() if ref in known}
        await super().adopt(known)
        return await self.resync(known)

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        waits = {ref: RunState(waiting=self._waiting(ref)) for ref in refs if ref in self.queue}
        return await super().resync(refs) | waits

    async def start(self, spec: RunSpec) -> None:
        ref = RunRef(spec.job_id, spec.run)
        if ref not in self.states and ref not in self.queue:
            self.queue[ref] = spec
            await self._look()

    async def stop(self, ref: RunRef, grace: float) -> bool:
        if ref not in self.queue:
            return await super().stop(ref, grace)
        self.queue.pop(ref)
        self.states[ref] = RunState()
        self._output.setdefault(ref.job_id, Output(self._log_limit))
        self.end(ref, 143, ExitCause.CANNOT_START, "It was taken out of the queue")
        return True

    def end(
        self, ref: RunRef, code: int, cause: ExitCause | None = None, message: str | None = None
    ) -> None:
        super().end(ref, code, cause, message)
        task = asyncio.ensure_future(self._look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while self.queue and len(self.live) < self._at_once:
            await super().start(self.queue.pop(next(iter(self.queue))))
        for ref in self.queue:
            self.tell(self._waiting(ref))

    def _waiting(self, ref: RunRef) -> Waiting:
        ahead = [*self.queue].index(ref) + len(self.live)
        sentence = f"It is number {ahead} in the queue"
        return Waiting(
            ref=ref, at=datetime.now(UTC), reason=WaitReason.QUEUED, description=sentence
        )
