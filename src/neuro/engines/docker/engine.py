"""DockerEngine: the Engine protocol over a Docker daemon, keepers and files."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from neuro.engines.base import (
    Connection,
    EngineFault,
    Event,
    ExitCause,
    Exited,
    LogChunk,
    LogExtent,
    Node,
    Placement,
    RunNotFound,
    RunRef,
    RunSpec,
    RunState,
    Session,
    Usage,
)
from neuro.engines.docker import api, containers, launcher_program, making, volumes
from neuro.engines.docker.groups import group_of
from neuro.engines.docker.keepers import Keepers
from neuro.engines.docker.order import Mount, Order
from neuro.engines.docker.settings import DockerSettings, socket_path
from neuro.engines.sandbox import cgroups, identities, layout, leftovers, machine
from neuro.engines.sandbox.adoption import Adoption
from neuro.engines.sandbox.connections import Connections
from neuro.engines.sandbox.looking import Looking
from neuro.engines.sandbox.tidying import Tidying
from neuro.engines.storage import Storage

_DEFAULT_NETWORK = "bridge"  # what the daemon has unless it was told otherwise
_NO_GROUPS = cgroups.Groups()  # the daemon makes those of containers, and removes them

log = logging.getLogger("neuro.engine")
T = TypeVar("T")


class DockerEngine:
    """Runs jobs as containers of the daemon on this machine; its own files are in ``folder``.

    A run has a keeper, a small process that outlives the server: see ``keeper``.
    """

    name = "docker"
    placement = Placement.LOCAL

    def __init__(
        self,
        folder: Path,
        settings: DockerSettings | None = None,
        storage: Storage | None = None,
    ) -> None:
        """``storage`` is where volumes are; without it there are none."""
        self._path = folder
        self._folder = ""
        self._settings = settings or DockerSettings()
        self._storage = storage
        self._socket = ""
        self._version = ""
        self._installation = ""
        self._host_address = ""
        self._daemon = api.Daemon("")
        self._coming: dict[RunRef, asyncio.Future[None]] = {}  # starts that are under way
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keepers: Keepers | None = None
        self._connections: Connections | None = None
        self._tidying = Tidying("")
        self._looking = Looking("", lambda job_id: None)
        self.trouble: str | None = None
        self.notices: list[str] = []
        self.gpu_model: str | None = None

    @property
    def host_address(self) -> str:
        """Where a run reaches the ports of this machine that it was given."""
        return self._host_address

    @property
    def files_owner(self) -> int | None:
        """The same as the sandbox engine's: root of a container, in its volumes alone."""
        return identities.STORAGE

    # Life.

    async def open(self) -> None:
        """See the protocol."""
        if os.geteuid() != 0:
            raise EngineFault(
                "the docker engine needs a server that root runs, which looks after the processes"
                " in containers: run it as root, or use the sandbox engine"
            )
        launcher_program.check_processor()
        self._folder = str(self._path.resolve())
        self._path.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o700)
        os.makedirs(f"{self._folder}/jobs", exist_ok=True)
        self._socket = socket_path(self._settings.host, os.environ)
        self._installation = machine.installation(self._folder)["id"]
        await self._meet_daemon()
        self._tidying = Tidying(self._folder)
        self._keepers = Keepers(self._folder)
        await self._keepers.open()
        self._connections = Connections(
            self._folder, _NO_GROUPS, self._tidying, self._tell, self._renew
        )
        self._looking = Looking(self._folder, self._connections.live)

    async def _meet_daemon(self) -> None:
        try:
            self._version = api.chosen_version(await _asked(api.Daemon(self._socket).version))
            self._daemon = api.Daemon(self._socket, self._version)
            self._host_address = await _asked(self._gateway)
        except OSError as error:
            raise EngineFault(
                f"the Docker daemon at {self._socket} does not answer"
                f" ({error.strerror or error}): start it"
            ) from None
        except ValueError as error:
            raise EngineFault(str(error)) from None
        except api.Refused as refused:
            raise EngineFault(f"the Docker daemon refuses to work: {refused}") from None

    def _gateway(self) -> str:
        """This machine's address for all containers; it stays while the daemon is this one."""
        network = self._daemon.network(_DEFAULT_NETWORK)
        if (address := _address_in(network)) is not None:
            return address
        making.ensure_network(self._daemon, self._folder, self._installation, "")
        if (address := _address_in(self._daemon.network(self._network))) is not None:
            return address
        raise OSError(0, f"its network {self._network} has no address of this machine")

    async def _renew(self) -> None:
        """Nothing of the engine's own is behind a run that could not begin."""

    async def close(self) -> None:
        """See the protocol."""
        tasks = [*self._tasks, *self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connections is not None:
            await self._connections.close()
        await self._tidying.close()
        if self._keepers is not None:
            await self._keepers.close()
        if self._installation:
            try:
                await _asked(lambda: self._forget_network(self._network))
            except OSError:
                pass  # the next life of the server has use for it

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        """See the protocol."""
        connections = self._connected()
        adoption = Adoption(
            self._folder, _NO_GROUPS, connections, self._tidying, self._spawn_telling
        )
        states = await adoption.take_over(known, None)
        going = set(connections.links) | {ref for ref, one in states.items() if one.trouble}
        try:
            await _asked(lambda: self._sweep(going))
        except (OSError, api.Refused) as error:
            log.warning("containers that belong to no run stay until the next start: %s", error)
        return states

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        """See the protocol."""
        return await self._connected().states(refs)

    def _sweep(self, going: Collection[RunRef]) -> None:
        """Remove the containers and networks of this installation that no run needs."""
        volumes.sweep(self._folder)
        label = containers.label_of(self._installation)
        for one in self._daemon.containers(label):
            if containers.ref_of(one.labels) not in going:
                self._daemon.remove_container(one.id)
        for network in self._daemon.networks(label):
            if network.name != self._network:
                self._forget_network(network.name)

    @property
    def _network(self) -> str:
        """The network of runs without neighbours."""
        return containers.network_of(self._installation, "")

    def _forget_network(self, name: str) -> None:
        try:
            self._daemon.remove_network(name)
        except api.Refused:
            pass  # somebody is in it

    def _tell(self, event: Event) -> None:
        self._events.put_nowait(event)
        if isinstance(event, Exited) and event.cause == ExitCause.LOST:
            self._spawn(self._remove_container(event.ref))

    async def _remove_container(self, ref: RunRef) -> None:
        name = containers.name_of(self._installation, ref)
        try:
            await _asked(lambda: self._daemon.remove_container(name))
        except (OSError, api.Refused) as error:
            log.warning("the container %s stays until the next start: %s", name, error)

    # Runs.

    async def events(self) -> AsyncIterator[Event]:
        """See the protocol."""
        while True:
            yield await self._events.get()

    async def start(self, spec: RunSpec) -> None:
        """See the protocol."""
        ref = RunRef(spec.job_id, spec.run)
        if ref in self._connected().links:
            return
        if ref not in self._coming:
            self._coming[ref] = task = asyncio.ensure_future(self._start(self._order(spec)))
            task.add_done_callback(lambda _: self._coming.pop(ref, None))
        # A caller that gives up does not leave a run that nobody listens to.
        await asyncio.shield(self._coming[ref])

    async def _start(self, order: Order) -> None:
        assert self._keepers is not None
        connections = self._connected()
        with connections.settling(order.ref):
            await self._keepers.start(order)
            await connections.take_up(order.ref)

    def _order(self, spec: RunSpec) -> Order:
        layout.check_job_id(spec.job_id)
        if spec.disks:
            raise EngineFault(
                "This engine has no disks: mount a storage: volume, or choose a preset of another"
                " one."
            )
        if spec.privileged:
            raise EngineFault("This engine gives no job the rights of this machine's root.")
        if spec.control:
            raise EngineFault("This engine runs no commands of the platform's own.")
        if spec.volumes and self._storage is None:
            raise EngineFault("This engine has no storage to mount volumes from.")
        retention = self._settings.retention
        return Order(
            folder=self._folder,
            socket=self._socket,
            version=self._version,
            installation=self._installation,
            spec=spec,
            mounts=tuple(
                Mount(self._storage.path_of(one.source), one.target, one.read_only)
                for one in spec.volumes
                if self._storage is not None
            ),
            processes=self._settings.processes,
            log_limit=retention.total,
            log_portion=retention.segment,
        )

    async def stop(self, ref: RunRef, grace: float) -> bool:
        """See the protocol."""
        if ref in self._coming:  # only its end shows whether it made a run
            await asyncio.wait({self._coming[ref]})
        connections = self._connected()
        if ref not in connections.links:
            if not os.path.isdir(layout.run_folder(self._folder, ref.job_id, ref.run)):
                return False
            # Begun by a start whose answer was lost, not taken over yet, or over.
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
        link = self._connected().live(job_id)
        if link is None or link.init is None:
            raise RunNotFound(job_id)
        try:
            group = group_of(link.init)
            seconds, memory = group.cpu_seconds(), group.memory()
        except OSError:
            raise RunNotFound(job_id) from None
        now = time.monotonic()
        age = max(0.001, (time.time_ns() - (link.started or time.time_ns())) / 1e9)
        before, used = link.previous_usage or (now - age, 0.0)
        link.previous_usage = (now, seconds)
        cpu = max(0.0, (seconds - used) / max(0.001, now - before))
        return Usage(at=datetime.now(UTC), cpu=cpu, memory=memory)

    async def nodes(self) -> list[Node]:
        """See the protocol: the daemon's machine."""
        try:
            info = await _asked(self._daemon.info)
        except (OSError, api.Refused) as error:
            raise EngineFault(f"the Docker daemon does not say what it has: {error}") from None
        return [Node(name=self.name, cpu=float(info.cores), memory=info.mem_total)]

    # Within.

    def _connected(self) -> Connections:
        if self._connections is None:
            raise EngineFault("the engine is not open")
        return self._connections

    def _spawn_telling(self, finding: Any) -> None:
        self._spawn(self._tell_late(finding))

    async def _tell_late(self, finding: Any) -> None:
        """Tell as events what ``adopt`` could not; a connection has told of a start itself."""
        state: RunState = await finding
        for event in (state.started, state.exited):
            if event is not None:
                self._tell(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _address_in(network: api.Network | None) -> str | None:
    """The machine's own address in a network."""
    ranges = network.addresses.config if network is not None else None
    return ranges[0].gateway.partition("/")[0] or None if ranges else None


async def _asked(question: Callable[[], T]) -> T:
    """What the daemon answers, which blocks."""
    return await asyncio.to_thread(question)
