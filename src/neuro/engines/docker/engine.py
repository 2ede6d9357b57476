"""DockerEngine: the Engine protocol over a Docker daemon, keepers and files."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from neuro.docker import asking, drafts
from neuro.engines.base import (
    EngineFault,
    Event,
    ExitCause,
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
from neuro.engines.docker import api, containers, launcher_program, making, volumes
from neuro.engines.docker.finding import cannot_build
from neuro.engines.docker.gpus import (
    asked_for,
    devices_of,
    devices_of_podman,
    gpus_of,
    runtime_gives,
)
from neuro.engines.docker.groups import group_of
from neuro.engines.docker.keepers import Keepers
from neuro.engines.docker.order import Mount, Order
from neuro.engines.docker.saving import Save
from neuro.engines.docker.settings import DockerSettings, socket_path
from neuro.engines.sandbox import cgroups, identities, layout, machine
from neuro.engines.sandbox.adoption import Adoption
from neuro.engines.sandbox.supervised import SupervisedRuns, mounts_of, unless_left
from neuro.engines.sandbox.tidying import Tidying
from neuro.engines.storage import Storage

_DEFAULT_NETWORK = "bridge"  # what the daemon has unless it was told otherwise
_DEVICES = "/dev"
_HOOK = "nvidia-container-runtime-hook"
_NO_GPUS = (
    "the Docker daemon cannot give this machine's GPUs to containers: install NVIDIA's container"
    " toolkit (`apt install nvidia-container-toolkit`, from NVIDIA's packages) and restart the"
    " daemon"
)
_NO_GPUS_OF_PODMAN = (
    "podman's service gives no job this machine's GPUs: that needs podman 5.4 or later, and a"
    " description of them (`nvidia-ctk cdi generate --output /etc/cdi/nvidia.yaml`)"
)
_NO_GROUPS = cgroups.Groups()  # the daemon makes those of containers, and removes them

_LOOK_SECONDS = 5.0  # between two looks whether the daemon is there
_LOOKS = 12  # of which one also asks what it has, which costs podman's service some work

log = logging.getLogger("neuro.engine")
T = TypeVar("T")


class DockerEngine(SupervisedRuns):
    """Runs jobs as containers of the daemon on this machine; its own files are in ``folder``.

    A run has a keeper, a small process that outlives the server: see ``keeper``.
    """

    name = "docker"

    def __init__(
        self,
        folder: Path,
        settings: DockerSettings | None = None,
        storage: Storage | None = None,
    ) -> None:
        """``storage`` is where volumes are; without it there are none."""
        super().__init__(folder, storage)
        self._settings = settings or DockerSettings()
        self._socket = ""
        self._version = ""
        self._installation = ""
        self._host_address = ""
        self._daemon = api.Daemon("")
        self._gpus: dict[str, str] = {}  # what the daemon is asked for, by the names of GPUs
        self._keepers: Keepers | None = None

    @property
    def host_address(self) -> str:
        """Where a run reaches the ports of this machine that it was given."""
        return self._host_address

    @property
    def build_daemon(self) -> str:
        """Where the daemon is asked to build images; empty where it is not."""
        return self._socket if self._settings.builds else ""

    @property
    def files_owner(self) -> int | None:
        """The same as the sandbox engine's: root of a container, in its volumes alone."""
        return identities.STORAGE

    # Life.

    async def open(self) -> None:
        """See the protocol."""
        self._socket, self._version, is_podman = await _asked(lambda: examine(self._settings))
        self._open_folder()
        os.makedirs(f"{self._folder}/jobs", exist_ok=True)
        self._installation = machine.installation(self._folder)["id"]
        self._daemon = api.Daemon(self._socket, self._version, is_podman=is_podman)
        with _refusing(self._socket):
            self._host_address = await _asked(self._gateway)
        self.gpu_model = await asyncio.to_thread(machine.gpu_model)
        await self.nodes()  # which says what is missing
        self._tidying = Tidying(self._folder)
        self._keepers = Keepers(self._folder)
        await self._keepers.open()
        self._connect(_NO_GROUPS, self._renew)
        self._spawn(self._watch_daemon())

    def _gateway(self) -> str:
        """This machine's address for all containers; it stays while the daemon is this one."""
        if not self._daemon.is_podman:
            network = self._daemon.network(_DEFAULT_NETWORK)
            if (address := _address_in(network)) is not None:
                return address
        making.ensure_network(self._daemon, self._folder, self._installation, "")
        address = _address_in(self._daemon.network(self._network))
        if address is None:
            raise OSError(0, f"its network {self._network} has no address of this machine")
        if self._daemon.is_podman:
            # A network of podman is there only while a container is in it, and nobody is in this
            # one: it keeps the address free of others, and this machine has it at all times.
            add = ["ip", "address", "replace", f"{address}/32", "dev", "lo"]
            try:
                subprocess.run(add, check=False, capture_output=True)
            except FileNotFoundError:
                raise EngineFault(
                    "jobs in podman need the program `ip` on this machine: install iproute2"
                ) from None
        return address

    async def _watch_daemon(self) -> None:
        """Tell when it goes away, when it is there again, and when its GPUs change."""
        was_there, gpus = True, tuple(self._gpus)
        for number in itertools.count(1):
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await _asked(api.Daemon(self._socket).version)
                is_there = True
                if number % _LOOKS == 0 or not was_there:
                    await self.nodes()
            except (OSError, asking.Refused, EngineFault):
                is_there = False
            if (is_there, tuple(self._gpus)) != (was_there, gpus):
                was_there, gpus = is_there, tuple(self._gpus)
                self._tell(NodesChanged())

    async def _renew(self) -> None:
        """Nothing of the engine's own is behind a run that could not begin."""

    async def close(self) -> None:
        """See the protocol."""
        await self._let_go()
        if self._keepers is not None:
            await self._keepers.close()
        if self._installation and not self._daemon.is_podman:
            try:
                await _asked(lambda: self._forget_network(self._network))
            except OSError:
                pass  # the next life of the server has use for it

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        """See the protocol."""
        connections = self._connected()
        adoption = Adoption(self._folder, _NO_GROUPS, connections, self._tidying, self._tell_late)
        states = await adoption.take_over(known, None)
        going = set(connections.links) | {ref for ref, one in states.items() if one.trouble}
        try:
            await _asked(lambda: self._sweep(going))
        except (OSError, asking.Refused) as error:
            log.warning("containers that belong to no run stay until the next start: %s", error)
        return states

    def _sweep(self, going: Collection[RunRef]) -> None:
        """Remove the containers and networks of this installation that no run needs.

        Of images, those that a save or a build has left which was killed.
        """
        volumes.sweep(self._folder)
        label = containers.label_of(self._installation)
        for one in self._daemon.containers(label):
            if containers.ref_of(one.labels) not in going:
                self._daemon.remove_container(one.id)
        for network in self._daemon.networks(label):
            if network.name != self._network:
                self._forget_network(network.name)
        drafts.sweep(self._daemon, time.time())

    @property
    def _network(self) -> str:
        """The network of runs without neighbours."""
        return containers.network_of(self._installation, "")

    def _forget_network(self, name: str) -> None:
        try:
            self._daemon.remove_network(name)
        except asking.Refused:
            pass  # somebody is in it

    def _tell(self, event: Event) -> None:
        super()._tell(event)
        if isinstance(event, Exited) and event.cause == ExitCause.LOST:
            self._spawn(self._remove_container(event.ref))

    async def _remove_container(self, ref: RunRef) -> None:
        name = containers.name_of(self._installation, ref)
        try:
            await _asked(lambda: self._daemon.remove_container(name))
        except (OSError, asking.Refused) as error:
            log.warning("the container %s stays until the next start: %s", name, error)

    # Runs.

    def _order(self, spec: RunSpec) -> Callable[[], Awaitable[None]]:
        assert self._keepers is not None
        return partial(self._keepers.start, self._order_of(spec))

    def _order_of(self, spec: RunSpec) -> Order:
        layout.check_job_id(spec.job_id)
        if spec.privileged:
            raise EngineFault("This engine gives no job the rights of this machine's root.")
        if spec.control:
            raise EngineFault("This engine runs no commands of the platform's own.")
        if spec.nesting or spec.build_cache:
            raise EngineFault("This engine builds no images: the embedded one, `sandbox`, does.")
        retention = self._settings.retention
        return Order(
            folder=self._folder,
            socket=self._socket,
            version=self._version,
            is_podman=self._daemon.is_podman,
            installation=self._installation,
            spec=self._apart(self._with_gpus(spec)),
            mounts=tuple(Mount(*one) for one in mounts_of(spec, self._storage)),
            processes=self._settings.processes,
            log_limit=retention.total,
            log_portion=retention.segment,
        )

    def _with_gpus(self, spec: RunSpec) -> RunSpec:
        """The run, with its GPUs by the names that the daemon has for them now."""
        try:
            asked = asked_for(spec.gpus, self._gpus)
        except KeyError as error:
            raise NotReady(f"the GPU {error.args[0]} is not there at the moment") from None
        return msgspec.structs.replace(spec, gpus=asked)

    def _apart(self, spec: RunSpec) -> RunSpec:
        """The run, in a network of its own where those without neighbours cannot share one."""
        if spec.neighbours or not self._daemon.is_podman:
            return spec
        return msgspec.structs.replace(spec, neighbours=f"{spec.job_id} {spec.run}")

    async def commit(self, job_id: str, saving: Saving, told: Callable[[SaveStep], None]) -> None:
        """See the protocol. The daemon pushes it, and stops the run while it reads its files."""
        link = self._connected().live(job_id)
        if link is None:
            raise RunNotFound(job_id)
        name = containers.name_of(self._installation, link.ref)
        save = Save(self._daemon, name, saving, told)
        try:
            await unless_left(save.run, save.stop)
        except OSError as error:
            raise NotReady(asking.silent(self._socket, error)) from None

    # Looking in.

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
        except OSError as error:
            raise NotReady(asking.silent(self._socket, error)) from None
        except asking.Refused as refused:
            raise NotReady(f"the Docker daemon does not say what it has: {refused}") from None
        indexes = machine.gpus(_DEVICES)
        if self._daemon.is_podman:
            devices = await asyncio.to_thread(devices_of_podman, info)
            self._gpus = gpus_of(devices, ())
        else:
            devices = await asyncio.to_thread(devices_of, info)
            given = runtime_gives(info, has_hook=shutil.which(_HOOK) is not None)
            self._gpus = gpus_of(devices, indexes if given else ())
        lacks = _NO_GPUS_OF_PODMAN if self._daemon.is_podman else _NO_GPUS
        self.notices = [lacks] if indexes and not self._gpus else []
        gpus = tuple(self._gpus)
        return [Node(name=self.name, cpu=float(info.cores), memory=info.mem_total, gpus=gpus)]


def examine(settings: DockerSettings) -> tuple[str, str, bool]:
    """The daemon's socket, the version of its API to speak, and whether it is podman's service.

    It changes nothing, and blocks.

    Raises EngineFault where this machine cannot run jobs so, NotReady where the daemon is away.
    """
    if os.geteuid() != 0:
        raise EngineFault(
            "the docker engine needs a server that root runs, which looks after the processes"
            " in containers: run it as root, or use the sandbox engine"
        )
    launcher_program.check_processor()
    socket = socket_path(settings.host, os.environ, settings.places)
    with _refusing(socket):
        version = api.Daemon(socket).version()
        chosen = asking.chosen_version(version)
    if settings.builds and (lack := cannot_build(version)) is not None:
        raise EngineFault(
            f'the daemon at {socket} cannot build images, as builder = "buildkit" asks: {lack}.'
            " Install Docker 20.10 or newer, or remove that line"
        )
    return socket, chosen, version.is_podman


@contextmanager
def _refusing(socket: str) -> Iterator[None]:
    """Raise what keeps the daemon from its work as the protocol has it."""
    try:
        yield
    except OSError as error:
        raise NotReady(asking.silent(socket, error)) from None
    except ValueError as error:
        raise EngineFault(str(error)) from None
    except asking.Refused as refused:
        raise EngineFault(f"the Docker daemon refuses to work: {refused}") from None


def _address_in(network: api.Network | None) -> str | None:
    """The machine's own address in a network."""
    ranges = network.addresses.config if network is not None else None
    return ranges[0].gateway.partition("/")[0] or None if ranges else None


async def _asked(question: Callable[[], T]) -> T:
    """What the daemon answers, which blocks."""
    return await asyncio.to_thread(question)
