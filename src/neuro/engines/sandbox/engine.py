"""SandboxEngine: the Engine protocol over zygote, supervisors and files."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from neuro.engines.base import (
    Connection,
    EngineFault,
    Event,
    LogChunk,
    LogExtent,
    Node,
    NodesChanged,
    NotReady,
    Placement,
    RunRef,
    RunSpec,
    RunState,
    Session,
    Usage,
)
from neuro.engines.sandbox import cgroups, identities, layout, leftovers, machine, nat
from neuro.engines.sandbox.adoption import Adoption
from neuro.engines.sandbox.connections import Connections
from neuro.engines.sandbox.keeping import Keeping
from neuro.engines.sandbox.launch import OWN, Plan, Request
from neuro.engines.sandbox.looking import Looking
from neuro.engines.sandbox.nursery import Nursery
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.engines.sandbox.tidying import Tidying
from neuro.engines.storage import Storage

_KEEP_SECONDS = 5.0  # between two looks at what runs stand on

log = logging.getLogger("neuro.engine")


class SandboxEngine:
    """Runs jobs as sandboxes on this machine; its files are in ``folder``, which it creates.

    After ``open``, ``notices`` are sentences about what this machine lacks and what to install, and
    ``gpu_model`` is what its GPUs are, if it has any.
    """

    name = "sandbox"
    placement = Placement.LOCAL

    def __init__(
        self,
        folder: Path,
        settings: SandboxSettings | None = None,
        storage: Storage | None = None,
    ) -> None:
        """``storage`` is where volumes are; without it there are none."""
        self._path = folder
        self._storage = storage
        self._settings = settings or SandboxSettings()
        self._folder = ""
        self._plan: Plan | None = None
        self._coming: dict[RunRef, asyncio.Future[None]] = {}  # starts that are under way
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nursery: Nursery | None = None
        self._tidying = Tidying("")
        self._looking = Looking("", lambda job_id: None)
        self._connections: Connections | None = None
        self._keeping: Keeping | None = None
        self._mending = asyncio.Lock()
        self.trouble: str | None = None
        self.notices: list[str] = []
        self.gpu_model: str | None = None

    @property
    def host_address(self) -> str:
        """Where a run reaches the ports of this machine that it was given."""
        return self._ready().network.host_address

    @property
    def files_owner(self) -> int | None:
        """See the protocol."""
        return None if self._ready().plain else identities.STORAGE

    @property
    def _volumes(self) -> str | None:
        return None if self._storage is None else str(self._storage.folder)

    # Life.

    async def open(self) -> None:
        """See the protocol. Takes about 0.15 s: this machine is looked at meanwhile."""
        self._folder = str(self._path.resolve())
        self._path.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o700)
        self._tidying = Tidying(self._folder)
        open_files = self._settings.open_files
        if open_files is None:
            open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._nursery = Nursery(self._folder, open_files)
        opening = asyncio.create_task(self._nursery.open())
        try:
            # Its reason is the better one where both fail.
            plan, self.notices = await asyncio.to_thread(
                machine.examine, self._folder, self._settings, self._volumes
            )
            await opening
            for name in ("jobs", "berths"):
                layout.spread(f"{self._folder}/{name}")
        except BaseException:
            await asyncio.gather(opening, return_exceptions=True)
            await self._nursery.close()
            raise
        self.gpu_model = await asyncio.to_thread(machine.gpu_model)
        await self._nursery.configure(plan)
        self._take(plan)
        tell = self._events.put_nowait
        self._connections = Connections(
            self._folder, plan.groups, self._tidying, tell, self._mend_anew
        )
        self._looking = Looking(self._folder, self._connections.live)
        self._spawn(self._keep())

    def _take(self, plan: Plan) -> None:
        self._plan = plan
        identity = machine.installation(self._folder)
        self._keeping = Keeping(plan, identity, self._settings, self._volumes)

    async def _keep(self) -> None:
        """Make again what somebody takes away, for as long as the engine is open."""
        gpus = machine.gpus(self._settings.device_folder)
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            if gpus != (gpus := machine.gpus(self._settings.device_folder)):
                self._events.put_nowait(NodesChanged())
            try:
                await self._mend()
            except (EngineFault, OSError) as error:
                if self.trouble is None:
                    log.error("jobs cannot be started, trying again: %s", error)
                self.trouble = str(error)
            except Exception:
                log.exception("what jobs need cannot be looked after")

    async def _mend(self, *, anew: bool = False) -> None:
        """Make what is missing; ``anew`` whatever is there. Raises EngineFault, OSError."""
        async with self._mending:
            assert self._keeping is not None
            assert self._nursery is not None
            keeping = self._keeping
            missing = keeping.missing() or await asyncio.to_thread(keeping.unfenced)
            if missing is None and not anew:
                self.trouble = None
                return
            if missing is not None:
                log.warning("%s: it is made again", missing)
            plan, self.notices[:] = await asyncio.to_thread(keeping.renewed)
            await self._nursery.configure(plan)
            self._take(plan)
            self.trouble = None

    async def _mend_anew(self) -> None:
        try:
            await self._mend(anew=True)
        except (EngineFault, OSError) as error:
            self.trouble = str(error)

    async def close(self) -> None:
        """See the protocol."""
        tasks = [*self._tasks, *self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connections is not None:
            await self._connections.close()
        await self._tidying.close()
        if self._nursery is not None:
            await self._nursery.close()
        if self._plan is not None:
            await asyncio.to_thread(self._release, self._plan)

    def _release(self, plan: Plan) -> None:
        """Give back what the runs shared, unless a run goes on."""
        if leftovers.may_go_on(self._folder):
            return
        identity = machine.installation(self._folder)
        if plan.network.kind == OWN:
            nat.tear_down(identity["id"], plan.network.subnet)
        cgroups.remove_bases(plan.groups)

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        """See the protocol."""
        zygote = self._nursery.pid if self._nursery is not None else None
        adoption = Adoption(
            self._folder,
            self._ready().groups,
            self._connected(),
            self._tidying,
            lambda finding: self._spawn(self._tell_late(finding)),
        )
        return await adoption.take_over(known, zygote)

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
            self._come(ref, self._begin(ref, _request(spec, self._storage)))
        # A caller that gives up does not leave a run that nobody listens to.
        await asyncio.shield(self._coming[ref])

    def _come(self, ref: RunRef, work: Coroutine[Any, Any, None]) -> None:
        self._coming[ref] = task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._coming.pop(ref, None))

    async def _begin(self, ref: RunRef, request: Request) -> None:
        with self._connected().settling(ref):
            await self._start(ref, request)

    async def _start(self, ref: RunRef, request: Request) -> None:
        assert self._nursery is not None
        assert self._keeping is not None
        try:
            # What is half made may look whole.
            if self._mending.locked() or self._keeping.missing() is not None:
                await self._mend()
            await self._nursery.start(request)
        except OSError as error:
            raise NotReady(str(error)) from error
        except EngineFault as error:
            raise NotReady(str(error)) from None
        await self._connected().take_up(ref)

    async def _tell_late(self, finding: Awaitable[RunState]) -> None:
        """Tell as events what ``adopt`` could not; a connection has told of a start itself."""
        state = await finding
        for event in (state.started, state.exited):
            if event is not None:
                self._events.put_nowait(event)

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

    async def usage(self, job_id: str) -> Usage:
        """See the protocol. The first sample's ``cpu`` is the average since the run began."""
        return await self._looking.usage(job_id)

    async def nodes(self) -> list[Node]:
        """See the protocol: the machine."""
        return [await asyncio.to_thread(machine.node, self.name, self._settings.device_folder)]

    # Within.

    def _ready(self) -> Plan:
        if self._plan is None:
            raise EngineFault("the engine is not open")
        return self._plan

    def _connected(self) -> Connections:
        if self._connections is None:
            raise EngineFault("the engine is not open")
        return self._connections

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(spec: RunSpec, storage: Storage | None) -> Request:
    layout.check_job_id(spec.job_id)
    if spec.disks:
        raise EngineFault(
            "This engine has no disks: mount a storage: volume, or choose a preset of another one."
        )
    if spec.volumes and storage is None:
        raise EngineFault("This engine has no storage to mount volumes from.")
    return Request(
        job_id=spec.job_id,
        run=spec.run,
        argv=spec.argv,
        env=dict(spec.env),
        working_dir=spec.working_dir or "/",
        hostname=spec.hostname[:64] or "job",
        mounts=tuple(
            (storage.path_of(one.source), one.target, one.read_only)
            for one in spec.volumes
            if storage is not None
        ),
        files=tuple(
            (one.target, base64.b64encode(one.content).decode(), one.mode) for one in spec.files
        ),
        tty=spec.tty,
        cpu=spec.cpu,
        memory=spec.memory,
        gpus=tuple(map(int, spec.gpus)),
        shm=spec.shm,
        privileged=spec.privileged,
        disk=spec.disk,
        neighbours=spec.neighbours,
        names=spec.names,
        stdin=spec.tty if spec.stdin is None else spec.stdin,
        control=spec.control,
    )
