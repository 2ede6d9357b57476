"""SandboxEngine: the Engine protocol over zygote, supervisors and files."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from neuro.domain.resources import Amount
from neuro.engines.base import (
    Connection,
    EngineFault,
    Event,
    NotReady,
    RunRef,
    RunSpec,
    RunState,
    Session,
    Usage,
)
from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import cgroups, identities, layout, leftovers, machine, nat
from neuro.engines.sandbox.adoption import Adoption
from neuro.engines.sandbox.ending import NOT_READY, ExitRecord
from neuro.engines.sandbox.keeping import Keeping
from neuro.engines.sandbox.launch import OWN, Plan, Request
from neuro.engines.sandbox.link import Link
from neuro.engines.sandbox.looking import Looking
from neuro.engines.sandbox.nursery import Nursery
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.engines.sandbox.states import exited, started
from neuro.engines.sandbox.tidying import Tidying

_RETRY_SECONDS = 1.0
READ_SECONDS = 60.0  # that an exit record may be out of reach before the run counts as lost
_KEEP_SECONDS = 5.0  # between two looks at what runs stand on

log = logging.getLogger("neuro.engine")


class SandboxEngine:
    """Runs jobs as sandboxes on this machine; its files are in ``folder``, which it creates.

    After ``open``, ``notices`` are sentences about what this machine lacks and what to install, and
    ``gpu_model`` is what its GPUs are, if it has any.
    """

    name = "sandbox"

    def __init__(self, folder: Path, settings: SandboxSettings | None = None) -> None:
        self._path = folder
        self._settings = settings or SandboxSettings()
        self._folder = ""
        self._plan: Plan | None = None
        self._links: dict[RunRef, Link] = {}
        self._coming: dict[RunRef, asyncio.Future[None]] = {}  # starts that are under way
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nursery: Nursery | None = None
        self._tidying = Tidying("")
        self._looking = Looking("", self._live)
        self._adoption: Adoption | None = None
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

    # Life.

    async def open(self) -> None:
        """See the protocol. Takes about 0.15 s: this machine is looked at meanwhile."""
        self._folder = str(self._path.resolve())
        self._path.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o700)
        self._tidying = Tidying(self._folder)
        self._looking = Looking(self._folder, self._live)
        open_files = self._settings.open_files
        if open_files is None:
            open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._nursery = Nursery(self._folder, open_files)
        opening = asyncio.create_task(self._nursery.open())
        try:
            # Its reason is the better one where both fail.
            plan, self.notices = await asyncio.to_thread(
                machine.examine, self._folder, self._settings
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
        self._adoption = Adoption(
            self._folder,
            plan.groups,
            self._links,
            self._connect_once,
            self._tidying,
            lambda finding: self._spawn(self._tell_late(finding)),
        )
        self._spawn(self._keep())

    def _take(self, plan: Plan) -> None:
        self._plan = plan
        self._keeping = Keeping(plan, machine.installation(self._folder), self._settings)

    async def _keep(self) -> None:
        """Make again what somebody takes away, for as long as the engine is open."""
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
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

    async def close(self) -> None:
        """See the protocol."""
        tasks = [*self._tasks, *self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tidying.close()
        for link in list(self._links.values()):
            link.close()
            link.finished()
        self._links.clear()
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
        return await self._adopting().take_over(known, zygote)

    # Runs.

    async def events(self) -> AsyncIterator[Event]:
        """See the protocol."""
        while True:
            yield await self._events.get()

    async def start(self, spec: RunSpec) -> None:
        """See the protocol. Raises EngineFault where no process can be started."""
        self._ready()
        ref = RunRef(spec.job_id, spec.run)
        if ref in self._links:
            return
        if ref not in self._coming:
            self._come(ref, self._start(ref, _request(spec)))
        # A caller that gives up does not leave a run that nobody listens to.
        await asyncio.shield(self._coming[ref])

    def _come(self, ref: RunRef, work: Coroutine[Any, Any, None]) -> None:
        self._coming[ref] = task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._coming.pop(ref, None))

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
        await self._take_up(ref)

    async def _take_up(self, ref: RunRef) -> None:
        """Take a run under control, or tell how it ended, whenever that can be done."""
        is_told = False
        while True:
            try:
                if not await self._connect_once(ref):
                    await self._report_finished(ref)
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                if not is_told:
                    log.warning("no connection to %s yet: %s", ref.job_id, error)
                    is_told = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _connect_once(self, ref: RunRef) -> bool:
        """Take a run under control; False where no supervisor listens any more.

        Raises OSError where that can be told later: it is the server that cannot connect.
        """
        folder = layout.run_folder(self._folder, ref.job_id, ref.run)
        try:
            link = await Link.open(folder, ref, self._begun, self._vanished)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return False
        if ref in self._links:  # somebody else was quicker
            link.close()
        elif not link.over.is_set():
            self._links[ref] = link
        return True

    async def _tell_late(self, finding: Awaitable[RunState]) -> None:
        """Tell as events what ``adopt`` could not; a connection has told of a start itself."""
        state = await finding
        for event in (state.started, state.exited):
            if event is not None:
                self._events.put_nowait(event)

    def _begun(self, link: Link) -> None:
        if (event := started(link.ref, link.started)) is not None:
            self._events.put_nowait(event)

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
                record = await asyncio.to_thread(self._record, ref) if why is None else None
                return record or await self._adopting().bury(ref, told=told, why=why)
            except OSError as error:  # it may be there: nothing may be said over it at once
                log.warning("the end of %s cannot be read: %s", ref.job_id, error)
                is_over = asyncio.get_running_loop().time() > patience
                if is_over and error.errno not in EXHAUSTED:
                    why = f"the record of how the run ended cannot be read: {error.strerror}"
                await asyncio.sleep(_RETRY_SECONDS)

    def _over(self, link: Link, record: ExitRecord) -> None:
        link.finished()
        if self._links.get(link.ref) is link:
            del self._links[link.ref]
        if record.may_begin_again:
            self._spawn(self._give_back(link.ref, record))
        else:
            self._events.put_nowait(exited(link.ref, record))

    async def _give_back(self, ref: RunRef, record: ExitRecord) -> None:
        """Nothing of the run has begun: take its folder away, and mend what was at fault."""
        log.warning("run %d of %s cannot begin yet: %s", ref.run, ref.job_id, record.message)
        place = layout.run_folder(self._folder, ref.job_id, ref.run)
        try:
            await asyncio.to_thread(leftovers.discard, self._folder, place)
            if record.cause == NOT_READY:  # new berths make no room on a volume of the run's own
                await self._mend(anew=True)
        except (EngineFault, OSError) as error:
            self.trouble = str(error)
        finally:  # the job waits for it, whatever goes wrong here
            self._events.put_nowait(exited(ref, record))

    async def _report_finished(self, ref: RunRef) -> None:
        """A run that was over before anybody connected to it."""
        record = await self._end_of(ref)
        if (event := started(ref, record.started)) is not None:
            self._events.put_nowait(event)
        if record.may_begin_again:
            await self._give_back(ref, record)
        else:
            self._events.put_nowait(exited(ref, record))

    async def stop(self, ref: RunRef, grace: float) -> bool:
        """See the protocol."""
        if ref in self._coming:  # only its end shows whether it made a run
            await asyncio.wait({self._coming[ref]})
        if ref not in self._links:
            if not os.path.isdir(layout.run_folder(self._folder, ref.job_id, ref.run)):
                return False
            # Claimed for a start whose answer was lost, not taken over yet, or over.
            await self._take_up(ref)
        if ref in self._links:
            self._links[ref].stop(grace)
        return True

    async def remove(self, job_id: str) -> None:
        """See the protocol. Raises EngineFault for a job that is going on."""
        if self._live(job_id) is not None:
            raise EngineFault(f"{job_id} is still running: stop it before it is removed")
        await asyncio.to_thread(leftovers.discard_job, self._folder, job_id)
        self._tidying.begin()

    # Looking in.

    def logs(
        self,
        job_id: str,
        *,
        since: datetime | None = None,
        follow: bool = True,
        timestamps: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """See the protocol."""
        return self._looking.logs(job_id, since=since, follow=follow, timestamps=timestamps)

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

    async def capacity(self) -> Amount:
        """See the protocol."""
        return await asyncio.to_thread(machine.capacity, self._settings.device_folder)

    # Within.

    def _ready(self) -> Plan:
        if self._plan is None:
            raise EngineFault("the engine is not open")
        return self._plan

    def _adopting(self) -> Adoption:
        if self._adoption is None:
            raise EngineFault("the engine is not open")
        return self._adoption

    def _live(self, job_id: str) -> Link | None:
        going = [link for ref, link in self._links.items() if ref.job_id == job_id]
        return max(going, key=lambda link: link.ref.run) if going else None

    def _record(self, ref: RunRef) -> ExitRecord | None:
        return layout.read_exit(layout.run_folder(self._folder, ref.job_id, ref.run))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(spec: RunSpec) -> Request:
    layout.check_job_id(spec.job_id)
    return Request(
        job_id=spec.job_id,
        run=spec.run,
        argv=spec.argv,
        env=dict(spec.env),
        working_dir=spec.working_dir or "/",
        hostname=spec.hostname[:64] or "job",
        mounts=tuple((mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        tty=spec.tty,
        cpu=spec.cpu,
        memory=spec.memory,
        gpus=spec.gpus,
        shm=spec.shm,
        privileged=spec.privileged,
        disk=spec.disk,
        neighbours=spec.neighbours,
        names=spec.names,
        stdin=spec.tty if spec.stdin is None else spec.stdin,
    )
