"""What engines have in common whose runs each have a process beside them that outlives the server.

That is a supervisor of the sandbox, or a keeper of a container: both answer the same frames.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from neuro.engines.base import (
    Connection,
    EngineFault,
    Event,
    LogChunk,
    LogExtent,
    Placement,
    RunRef,
    RunSpec,
    RunState,
    Session,
)
from neuro.engines.sandbox import cgroups, layout, leftovers
from neuro.engines.sandbox.connections import Connections
from neuro.engines.sandbox.looking import Looking
from neuro.engines.sandbox.tidying import Tidying
from neuro.engines.storage import Storage


class SupervisedRuns:
    """The part of the engine's protocol that is alike; each public method is the protocol's."""

    placement = Placement.LOCAL

    def __init__(self, folder: Path, storage: Storage | None) -> None:
        """``storage`` is where volumes are; without it there are none."""
        self._path = folder
        self._storage = storage
        self._folder = ""
        self._coming: dict[RunRef, asyncio.Future[None]] = {}  # starts that are under way
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tidying = Tidying("")
        self._looking = Looking("", lambda job_id: None)
        self._connections: Connections | None = None
        self.trouble: str | None = None
        self.notices: list[str] = []
        self.gpu_model: str | None = None

    # Life.

    def _open_folder(self) -> None:
        self._folder = str(self._path.resolve())
        self._path.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o700)

    def _connect(self, groups: cgroups.Groups, renew: Callable[[], Awaitable[None]]) -> None:
        """Make ready for runs; ``renew`` is that of ``Connections``."""
        self._connections = Connections(self._folder, groups, self._tidying, self._tell, renew)
        self._looking = Looking(self._folder, self._connections.live)

    async def _let_go(self) -> None:
        """Every run goes on."""
        tasks = [*self._tasks, *self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connections is not None:
            await self._connections.close()
        await self._tidying.close()

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        """See the protocol."""
        return await self._connected().states(refs)

    # Runs.

    async def events(self) -> AsyncIterator[Event]:
        """See the protocol."""
        while True:
            yield await self._events.get()

    async def start(self, spec: RunSpec) -> None:
        """See the protocol. Raises EngineFault where no process can be started."""
        ref = RunRef(spec.job_id, spec.run)
        if ref in self._connected().links:
            return
        if ref not in self._coming:
            self._coming[ref] = task = asyncio.ensure_future(self._come(ref, self._order(spec)))
            task.add_done_callback(lambda _: self._coming.pop(ref, None))
        # A caller that gives up does not leave a run that nobody listens to.
        await asyncio.shield(self._coming[ref])

    def _order(self, spec: RunSpec) -> Callable[[], Awaitable[None]]:
        """What begins the run. Raises EngineFault for what this engine never does."""
        raise NotImplementedError

    async def _come(self, ref: RunRef, begin: Callable[[], Awaitable[None]]) -> None:
        connections = self._connected()
        with connections.settling(ref):
            await begin()
            await connections.take_up(ref)

    async def stop(self, ref: RunRef, grace: float) -> bool:
        """See the protocol."""
        if ref in self._coming:  # only its end shows whether it made a run
            await asyncio.wait({self._coming[ref]})
        connections = self._connected()
        if ref not in connections.links:
            if not os.path.isdir(layout.run_folder(self._folder, ref.job_id, ref.run)):
                return False
            # Claimed for a start whose answer was lost, not taken over yet, or over.
            await connections.take_up(ref)
        if ref in connections.links:
            connections.links[ref].stop(grace)
        return True

    async def remove(self, job_id: str) -> None:
        """See the protocol. Raises EngineFault for a job that is going on."""
        if self._connected().live(job_id) is not None:
            raise EngineFault(f"{job_id} is still running: stop it before it is removed")
        await asyncio.to_thread(leftovers.discard_job, self._folder, job_id)
        self._tidying.begin()

    # Looking in.

    def logs(
        self, job_id: str, *, offset: int = 0, follow: bool = True, timestamps: bool = False
    ) -> AsyncGenerator[LogChunk, None]:
        """See the protocol."""
        return self._looking.logs(job_id, offset=offset, follow=follow, timestamps=timestamps)

    async def log_extent(self, job_id: str, *, since: datetime | None = None) -> LogExtent:
        """See the protocol."""
        return await self._looking.log_extent(job_id, since=since)

    async def attach(self, job_id: str, *, stdin: bool, output: bool) -> Session:
        """See the protocol."""
        return await self._looking.attach(job_id, stdin=stdin, output=output)

    async def exec(self, job_id: str, argv: Collection[str], *, tty: bool) -> Session:
        """See the protocol."""
        return await self._looking.exec(job_id, argv, tty=tty)

    async def connect(self, job_id: str, port: int) -> Connection:
        """See the protocol."""
        return await self._looking.connect(job_id, port)

    # Within.

    def _connected(self) -> Connections:
        if self._connections is None:
            raise EngineFault("the engine is not open")
        return self._connections

    def _tell(self, event: Event) -> None:
        self._events.put_nowait(event)

    def _tell_late(self, finding: Awaitable[RunState]) -> None:
        """Tell as events what ``adopt`` could not; a connection has told of a start itself."""

        async def tell() -> None:
            state = await finding
            for event in (state.started, state.exited):
                if event is not None:
                    self._tell(event)

        self._spawn(tell())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def unless_left(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Do what blocks in a thread; who gives up waits until that has stopped."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # it was stopped
        raise


def mounts_of(spec: RunSpec, storage: Storage | None) -> tuple[tuple[str, str, bool], ...]:
    """(path on this machine, target, read only) of each volume.

    Raises EngineFault where there is no storage, and for disks, which these engines do not have.
    """
    if spec.disks:
        raise EngineFault(
            "This engine has no disks: mount a storage: volume, or choose a preset of another one."
        )
    if not spec.volumes:
        return ()
    if storage is None:
        raise EngineFault("This engine has no storage to mount volumes from.")
    return tuple((storage.path_of(one.source), one.target, one.read_only) for one in spec.volumes)
