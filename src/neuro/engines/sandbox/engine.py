"""SandboxEngine: the Engine protocol over zygote, supervisors and files."""

from __future__ import annotations

import asyncio
import base64
import logging
import resource
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from neuro.engines.base import (
    EngineFault,
    Event,
    Exited,
    Node,
    NodesChanged,
    NotReady,
    RunNotFound,
    RunRef,
    RunSpec,
    RunState,
    SaveStep,
    Saving,
    Usage,
)
from neuro.engines.images.reach import Reach, as_environment
from neuro.engines.sandbox import cgroups, identities, layout, leftovers, machine, nat
from neuro.engines.sandbox.adoption import Adoption
from neuro.engines.sandbox.builds import Builds
from neuro.engines.sandbox.firewall import refused as never_reached
from neuro.engines.sandbox.images import ImageRefused, Images
from neuro.engines.sandbox.keeping import Keeping
from neuro.engines.sandbox.launch import OWN, Plan, Request
from neuro.engines.sandbox.nursery import Nursery
from neuro.engines.sandbox.pulls import Pulls
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.engines.sandbox.supervised import SupervisedRuns, mounts_of, unless_left
from neuro.engines.sandbox.tidying import Tidying
from neuro.engines.storage import Storage

_KEEP_SECONDS = 5.0  # between two looks at what runs stand on
_CACHE_THREADS = 2  # one may count all the while
_TIDY_SECONDS = 600.0  # between two looks at images that nobody uses

log = logging.getLogger("neuro.engine")

T = TypeVar("T")


class SandboxEngine(SupervisedRuns):
    """Runs jobs as sandboxes on this machine; its files are in ``folder``, which it creates.

    After ``open``, ``notices`` are sentences about what this machine lacks and what to install, and
    ``gpu_model`` is what its GPUs are, if it has any.
    """

    name = "sandbox"

    def __init__(
        self,
        folder: Path,
        settings: SandboxSettings | None = None,
        storage: Storage | None = None,
        images: Images | None = None,
    ) -> None:
        """``storage`` is where volumes are; without it there are none.

        ``images`` is where images come from; without it every run has the machine's own userland.
        """
        super().__init__(folder, storage)
        self._settings = settings or SandboxSettings()
        self._plan: Plan | None = None
        self._nursery: Nursery | None = None
        self._keeping: Keeping | None = None
        self._mending = asyncio.Lock()
        self._images = images
        self._caches: Builds | None = None
        # Their own: counting may take long, and nothing else waits for that.
        self._for_caches: ThreadPoolExecutor | None = None
        self._pulls = (
            None if images is None else Pulls(images, self._tell, self._settings.offline_host)
        )

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
        self._open_folder()
        if self._images is not None:
            await asyncio.to_thread(self._images.open)
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
        self._connect(plan.groups, self._mend_anew)
        self._spawn(self._keep())
        self._spawn(self._tidy())

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

    async def _tidy(self) -> None:
        """Take away what nobody uses, again and again."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            if self._images is not None:
                try:
                    await asyncio.to_thread(self._images.tidy)
                except Exception:
                    log.exception("images that nobody uses cannot be taken away")
            try:
                await self.tidy_builds()
            except Exception:
                log.exception("caches of builds that nobody uses cannot be taken away")

    async def tidy_builds(self) -> None:
        """Remove caches of builds beyond what may be kept (``Builds.sweep``). Raises OSError."""
        ending = threading.Event()
        kept = self._settings.builds_kept
        try:
            await self._with_caches(lambda builds: builds.sweep(kept, ending.is_set))
        finally:
            ending.set()
        self._tidying.begin()

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
        if self._pulls is not None:
            self._pulls.close()
        await self._let_go()
        if self._for_caches is not None:
            self._for_caches.shutdown(wait=False)
            self._for_caches = None
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
            self._tell_late,
        )
        return await adoption.take_over(known, zygote)

    # Runs.

    def _order(self, spec: RunSpec) -> Callable[[], Awaitable[None]]:
        return partial(self._begin, spec, _request(spec, self._storage, self._ready().default_argv))

    async def _begin(self, spec: RunSpec, request: Request) -> None:
        if spec.nesting or spec.build_cache:
            request = await self._building(spec, request)
        elif self._pulls is not None:
            request = await self._pulls.in_image(spec, request)
        await self._start(request)

    async def _building(self, spec: RunSpec, request: Request) -> Request:
        """The request of a run that builds images, which are its own matter."""
        if not spec.nesting:
            raise EngineFault("Only a run that builds images has the cache of a build.")
        env = {**request.env, **self._reach()}
        request = replace(request, nesting=True, env=env, daemon=spec.build_daemon)
        if not spec.build_cache:
            return request
        try:
            folder, lock = await self._with_caches(lambda builds: builds.take(spec.build_cache))
        except ValueError as error:
            raise EngineFault(str(error)) from None
        except OSError as error:
            raise NotReady(f"the cache of its build cannot be kept here: {error}") from error
        return replace(request, cache=folder, lock=lock)

    def _reach(self) -> dict[str, str]:
        """What tells a build where images and files may come from."""
        if self._images is not None:
            return as_environment(self._images.reach)
        return as_environment(Reach(closed=never_reached(private=self._settings.private_networks)))

    async def _with_caches(self, work: Callable[[Builds], T]) -> T:
        if self._for_caches is None:
            self._for_caches = ThreadPoolExecutor(_CACHE_THREADS, "caches")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._for_caches, work, self._builds())

    def _builds(self) -> Builds:
        if self._caches is None:
            plan = self._ready()
            self._caches = Builds(self._folder, identities.STORAGE if plan.shared_ids else None)
        return self._caches

    async def _come(self, ref: RunRef, begin: Callable[[], Awaitable[None]]) -> None:
        try:
            await super()._come(ref, begin)
        except ImageRefused as refused:
            now = datetime.now(UTC)
            why = str(refused)
            self._tell(Exited(ref=ref, at=now, exit_code=None, cause=refused.cause, message=why))
        finally:
            if self._pulls is not None:
                self._pulls.release(ref)

    async def stop(self, ref: RunRef, grace: float) -> bool:
        """See the protocol."""
        if self._pulls is not None:
            self._pulls.withdraw(ref)
        return await super().stop(ref, grace)

    async def _start(self, request: Request) -> None:
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

    async def commit(self, job_id: str, saving: Saving, told: Callable[[SaveStep], None]) -> None:
        """See the protocol."""
        # Seldom needed, and large.
        from neuro.engines.sandbox.saving import Save

        link = self._connected().live(job_id)
        if link is None or link.started is None:
            raise RunNotFound(job_id)
        save = Save(self._folder, link.ref, link.state, saving, self._images, told)
        await unless_left(save.pack, save.stop)
        try:
            if link.over.is_set():  # its files have gone one after the other
                raise RunNotFound(job_id)
            await unless_left(save.push, save.stop)
        finally:
            save.close()

    # Looking in.

    async def usage(self, job_id: str) -> Usage:
        """See the protocol. The first sample's ``cpu`` is the average since the run began."""
        return await self._looking.usage(job_id)

    async def nodes(self) -> list[Node]:
        """See the protocol: the machine."""
        return [await asyncio.to_thread(machine.node, self.name, self._settings.device_folder)]

    # Within.

    def _tell(self, event: Event) -> None:
        super()._tell(event if self._pulls is None else self._pulls.with_place(event))

    def _ready(self) -> Plan:
        if self._plan is None:
            raise EngineFault("the engine is not open")
        return self._plan


def _request(spec: RunSpec, storage: Storage | None, default: Sequence[str]) -> Request:
    layout.check_job_id(spec.job_id)
    mounts = mounts_of(spec, storage)
    try:
        argv = spec.command_line((), default)  # the machine's own userland has no entrypoint
    except ValueError as error:
        raise EngineFault(str(error)) from None
    return Request(
        job_id=spec.job_id,
        run=spec.run,
        argv=argv,
        env={**spec.env, **spec.secret_env},
        working_dir=spec.working_dir or "/",
        hostname=spec.hostname[:64] or "job",
        mounts=mounts,
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
