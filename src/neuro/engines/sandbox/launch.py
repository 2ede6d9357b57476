"""From a request to a process: the run's private folders, its volumes, its command."""

from __future__ import annotations

import base64
import os
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuro.engines.sandbox import cgroups, kernel, mounts, nesting
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.launcher import Command
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.userland import Userland

SHARED, OWN, PASTA = "shared", "veth", "pasta"
_SMALL_SHM = 64 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)


@dataclass(frozen=True)
class Network:
    """How runs reach the world. ``tool`` is pasta's path.

    ``prefix`` is what the names of the host's sides of veth pairs begin with. ``refused`` are
    networks that runs with pasta do not reach, but port 53 of ``resolvers``.
    ``host_port`` is the one port of this machine's loopback that pasta carries into each run.
    """

    kind: str = SHARED
    subnet: str = ""
    prefix: str = ""
    mtu: int = 1500
    tool: str = ""
    host_address: str = "127.0.0.1"
    host_port: int = 0
    refused: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What all runs have in common; made by the engine, used by the supervisors.

    ``plain`` is that the server has no rights over this machine; ``shared_ids`` that all runs are
    one user of it; ``system_calls`` the filter, in hexadecimal, because a plan travels as JSON.
    ``nesting`` is that of a run that may nest, ``pretending`` that of a step in one which has root
    for its only user: making one takes a millisecond.
    """

    folder: str
    userland: Userland
    groups: cgroups.Groups
    network: Network
    retention: Retention
    default_argv: tuple[str, ...]
    processes: int
    device_folder: str
    plain: bool
    shared_ids: bool
    system_calls: str
    nesting: str
    pretending: str

    @property
    def filter_program(self) -> bytes:
        """What the kernel checks each system call of a run with."""
        return bytes.fromhex(self.system_calls)


@dataclass(frozen=True)
class Request:
    """One run: base.RunSpec in the words of this engine.

    ``mounts`` are (path of this machine, target, read-only), ``files`` (target, content in base64,
    mode): a request travels as JSON.
    """

    job_id: str
    run: int
    argv: tuple[str, ...]
    env: dict[str, str]
    working_dir: str
    hostname: str
    mounts: tuple[tuple[str, str, bool], ...]
    tty: bool
    cpu: float
    memory: int
    gpus: tuple[int, ...]
    shm: bool
    privileged: bool
    disk: int
    neighbours: str
    names: tuple[str, ...]
    files: tuple[tuple[str, str, int], ...] = ()
    drivers: tuple[tuple[str, str], ...] = ()  # files of this machine, and their targets
    layers: tuple[str, ...] | None = None  # folders, the lowest first; None: no image
    on_host: bool = False  # they lie above the machine's userland
    lock: str = ""  # a file by which they are held
    grant: str = ""  # what the image was had by
    user: str = ""  # of the image
    stop_signal: int = signal.SIGTERM
    stdin: bool = False  # somebody will send input; a terminal without has no keyboard
    control: bool = False  # one of those that share a limit of memory
    where: str = ""  # it runs, if its owner has to know
    nesting: bool = False  # it may
    cache: str = ""  # the folder of this machine for its ``nesting.CACHE``
    daemon: str = ""  # the socket of this machine for its ``nesting.DAEMON``


@dataclass(frozen=True)
class Order:
    """What a berth's second process needs to know to become a run's command; travels as JSON.

    ``devices`` are names below /dev, ``volumes`` (target, whether it is a folder), ``layers`` how
    many an image has, None without one; a mount for each travels beside it, in this order, and the
    one with the run's own layer, or those of a run that may nest. ``shm`` and ``memory`` are bytes.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str
    hostname: str
    tty: bool
    privileged: bool
    shm: int
    memory: int
    devices: list[str]
    volumes: list[tuple[str, bool]]
    layers: int | None
    on_host: bool
    user: str
    nesting: bool


@dataclass(frozen=True)
class Prepared:
    """A run that only has to be begun; ``trees`` are the mounts that go with its order."""

    order: Order
    trees: list[int]


def plan_from(value: dict[str, Any]) -> Plan:
    """The plan that the engine sent as JSON."""
    userland = dict(value["userland"])
    userland["between"] = {path: tuple(layers) for path, layers in userland["between"].items()}
    for name in ("overlays", "bases", "read_only", "covered"):
        userland[name] = tuple(userland[name])
    return Plan(
        **{
            **value,
            "userland": Userland(**userland),
            "groups": cgroups.Groups(**value["groups"]),
            "network": Network(**value["network"]),
            "retention": Retention(**value["retention"]),
            "default_argv": tuple(value["default_argv"]),
        }
    )


def request_from(value: dict[str, Any]) -> Request:
    """The request that the engine sent as JSON."""
    return Request(
        **{
            **value,
            "argv": tuple(value["argv"]),
            "mounts": tuple(tuple(mount) for mount in value["mounts"]),
            "files": tuple(tuple(file) for file in value["files"]),
            "drivers": tuple(tuple(file) for file in value["drivers"]),
            "gpus": tuple(value["gpus"]),
            "names": tuple(value["names"]),
            "layers": None if value["layers"] is None else tuple(value["layers"]),
        }
    )


def environment(plan: Plan, request: Request) -> dict[str, str]:
    """The whole environment of the job and of what is executed in it."""
    if request.layers is None or request.on_host:
        env = {"PATH": plan.userland.path, "HOME": "/root", "LANG": "C.UTF-8"}
    else:  # as containers have it; the launcher knows the user's home
        env = {"PATH": _PATH}
    env["HOSTNAME"] = request.hostname
    if request.tty:
        env["TERM"] = "xterm-256color"
    if request.gpus:
        env["NVIDIA_VISIBLE_DEVICES"] = ",".join(map(str, request.gpus))
    return {**env, **request.env}


def gpu_devices(folder: str, gpus: Sequence[int]) -> list[tuple[str, str]]:
    """The device files of ``gpus`` and of the driver, as (path, name)."""
    if not gpus:
        return []
    found = []
    for name in sorted(os.listdir(folder)):
        index = name.removeprefix("nvidia")
        if name.startswith("nvidia") and (not index.isdigit() or int(index) in gpus):
            found.append((f"{folder}/{name}", name))
    missing = {f"nvidia{gpu}" for gpu in gpus} - {name for _, name in found}
    if missing:
        raise ValueError(f"this machine has no {', '.join(sorted(missing))}")
    return found


def make_layers(plan: Plan, folder: str, block: Block) -> None:
    """Make a run's private layers in ``folder``: see ``inside`` for what lies on what."""
    land = plan.userland
    os.makedirs(folder)
    block.give(folder)
    for number, path in enumerate(("/", *land.overlays)):
        upper = f"{folder}/{number}"
        if path == "/" and not land.writable:
            import shutil  # seldom needed, and large: sleeping runs would hold it

            shutil.copytree(f"{plan.folder}/land/{land.template}", upper, symlinks=True)
            for place, _, _ in os.walk(upper):
                block.give(place)
        else:
            os.mkdir(upper)
            block.give(upper)
        os.mkdir(f"{upper}.work")
        block.give(f"{upper}.work")
        if path == "/etc":
            for name in ("hosts", "hostname"):
                os.close(os.open(f"{upper}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
                block.give(f"{upper}/{name}")


def clear_work(layers: str, count: int) -> None:
    """Delete the work folders of ``count`` overlays, where no more is in them than overlays leave.

    The folder ``layers`` is as ``make_layers`` made it. ``remove_tree`` deletes whatever there may
    be, by six times as many system calls; what is not deleted here is left to it.
    """
    folder = os.open(layers, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in range(count):
            inner = f"{number}.work/work"
            mark = f"{inner}/incompat/volatile"  # of a mount with "volatile" (see ``inside``)
            try:
                marked = kernel.open_without_links(mark, os.O_PATH | os.O_DIRECTORY, folder)
                try:
                    os.unlink("dirty", dir_fd=marked)
                finally:
                    os.close(marked)
                for place in (mark, f"{inner}/incompat", inner, f"{number}.work"):
                    os.rmdir(place, dir_fd=folder)
            except OSError:
                continue
    finally:
        os.close(folder)


def own_etc(plan: Plan, folder: str) -> str:
    """The private layer over /etc among the layers in ``folder``."""
    return f"{folder}/{1 + plan.userland.overlays.index('/etc')}"


def write_own_files(etc: str, hostname: str, address: str) -> None:
    """The two files of /etc that are the job's own."""
    hosts = (
        f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
    )
    for name, text in (("hosts", hosts), ("hostname", hostname + "\n")):
        file = os.open(f"{etc}/{name}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def relay_place(layers: str) -> str:
    """Where a run's ``relay`` listens, whose private files are in the folder ``layers``."""
    return f"{layers}/daemon"


def prepare(plan: Plan, request: Request, block: Block, layers: str, init: int) -> Prepared:
    """Work out how to begin the run, whose private files are in the folder ``layers``.

    ``init`` is its first process. Raises ValueError for what is impossible, OSError for what this
    machine cannot do now.
    """
    trees: list[int] = []
    volumes: list[tuple[str, bool]] = []
    try:
        devices = gpu_devices(plan.device_folder, request.gpus)
        trees += [kernel.copy_tree(path) for path, _ in devices]
        for source, target, read_only in request.mounts:
            opened = mounts.open_source(source, target)
            try:
                volumes.append((target, stat.S_ISDIR(os.fstat(opened).st_mode)))
                trees.append(mounts.volume(opened, target, block.volumes, read_only=read_only))
            finally:
                os.close(opened)
        if request.files:
            volumes += [(target, False) for target, _, _ in request.files]
            files = [(base64.b64decode(content), mode) for _, content, mode in request.files]
            trees += mounts.own_files(layers, files, block)
        if request.cache:
            volumes.append((nesting.CACHE, True))
            trees.append(mounts.cache(request.cache, block))
        for source, target in request.drivers:
            volumes.append((target, False))
            trees.append(mounts.of_machine(source))
        if request.layers is not None:
            trees += [mounts.layer(path, block) for path in request.layers]
            uppers = uppers_of_image(plan, on_host=request.on_host)
            trees.append(mounts.private(layers, uppers, block))
        if request.nesting:
            daemon = relay_place(layers) if request.daemon else ""
            trees += nesting.trees(plan, block, init, daemon)
    except BaseException:
        for tree in trees:
            os.close(tree)
        raise
    order = Order(
        argv=list(request.argv),
        env=environment(plan, request),
        working_dir=request.working_dir,
        hostname=request.hostname,
        tty=request.tty,
        privileged=request.privileged,
        shm=request.memory if request.shm else _SMALL_SHM,
        memory=request.memory,
        devices=[name for _, name in devices],
        volumes=volumes,
        layers=None if request.layers is None else len(request.layers),
        on_host=request.on_host,
        user=request.user,
        nesting=request.nesting,
    )
    return Prepared(order, trees)


def command_of(plan: Plan, order: Order) -> Command:
    """The run's own command. Raises ValueError for a text that no process can be given."""
    return Command(
        order.argv,
        order.env,
        order.working_dir,
        tty=order.tty,
        # It makes files of all the users that an image has, and fences with all of them.
        privileged=order.privileged or order.nesting,
        filter_program=bytes.fromhex(plan.nesting) if order.nesting else plan.filter_program,
        processes=process_limit(plan),
        user=None if order.layers is None else order.user,
        single_user=plan.plain,
    )


def uppers_of_image(plan: Plan, *, on_host: bool) -> list[str]:
    """The names of the private layers over those of an image: one, or one for each overlay."""
    first = 1 + len(plan.userland.overlays)
    return [str(first + number) for number in range(first if on_host else 1)]


def own_files(plan: Plan, request: Request) -> dict[str, Any] | None:
    """Which of the private layers a run's own files are in, and on what they lie.

    ``parts`` are pairs: a layer's name, and the place in the run's root. ``lock`` is that of the
    image, if there is one, and ``grant`` names what that was had by. None where the run keeps them
    in memory.
    """
    land = plan.userland
    if not land.writable:
        return None
    places = ["", *(path.strip("/") for path in land.overlays)]
    if request.layers is None:
        uppers, lock = [str(number) for number in range(len(places))], None
    else:
        uppers, lock = uppers_of_image(plan, on_host=request.on_host), request.lock
    parts = [list(pair) for pair in zip(uppers, places, strict=False)]
    return {"parts": parts, "lock": lock, "grant": request.grant}


def namespaces(plan: Plan) -> int:
    """The kinds of namespaces that a run has of its own, its pid namespace aside."""
    return _NAMESPACES | (0 if plan.network.kind == SHARED else kernel.CLONE_NEWNET)


def process_limit(plan: Plan) -> int:
    """How many processes a command may have by itself; 0 where its control group knows."""
    return 0 if plan.groups.version else plan.processes


def cores_for(cpu: float) -> list[int]:
    """The cores that a run is kept on where no control group limits it."""
    allowed = sorted(os.sched_getaffinity(0))
    count = max(1, min(len(allowed), int(-(-cpu // 1))))
    first = os.getpid() % len(allowed)
    return [(allowed * 2)[first + number] for number in range(count)]
