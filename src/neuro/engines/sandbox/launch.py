"""From a request to a process: the run's private folders, its group, its network, bubblewrap."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuro.engines.sandbox import bwrap, cgroups, kernel
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.userland import Userland

SHARED, OWN, PASTA = "shared", "veth", "pasta"
_FREE = 32  # a berth's process has fewer descriptors open than this
MARK = "NEURO_RUN"  # in the environment of bubblewrap's own processes, not of the job's


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
    """What all runs have in common; made by the engine, used by the supervisors."""

    folder: str
    userland: Userland
    groups: cgroups.Groups
    network: Network
    retention: Retention
    bwrap: str
    env_tool: str
    setsid_tool: str
    default_argv: tuple[str, ...]
    processes: int
    device_folder: str
    user_namespace: bool


@dataclass(frozen=True)
class Request:
    """One run: base.RunSpec in the words of this engine."""

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


@dataclass(frozen=True)
class Order:
    """What the process of a berth needs to know to become a run's sandbox; travels as JSON."""

    command: list[str]
    mark: str
    etc: str
    hostname: str
    cpu: float


@dataclass(frozen=True)
class Prepared:
    """A sandbox that only has to be started, and what it will tell of its progress.

    ``passed`` are descriptors for it. ``info`` will carry the pid of its init. ``settled`` hangs up
    when its network namespace is ready for pasta (None where pasta is not used). ``gate`` is the
    writing end of a pipe that the sandbox reads one byte from when all is set up, just before it
    becomes the job's command.
    """

    order: Order
    passed: list[int]
    info: int
    settled: int | None
    gate: int


def plan_from(value: dict[str, Any]) -> Plan:
    """The plan that the engine sent as JSON."""
    userland = dict(value["userland"])
    userland["between"] = {path: tuple(layers) for path, layers in userland["between"].items()}
    for name in ("overlays", "read_only", "covered", "shut"):
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
            "gpus": tuple(value["gpus"]),
        }
    )


def environment(plan: Plan, request: Request) -> dict[str, str]:
    """The whole environment of the job and of what is executed in it."""
    env = {
        "PATH": plan.userland.path,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "HOSTNAME": request.hostname,
    }
    if request.tty:
        env["TERM"] = "xterm-256color"
    if request.gpus:
        env["NVIDIA_VISIBLE_DEVICES"] = ",".join(map(str, request.gpus))
    return {**env, **request.env}


def gpu_devices(folder: str, gpus: Sequence[int]) -> list[tuple[str, str]]:
    """The device files of ``gpus`` and of the driver, as (source, target below /dev)."""
    if not gpus:
        return []
    found = []
    for name in sorted(os.listdir(folder)):
        index = name.removeprefix("nvidia")
        if name.startswith("nvidia") and (not index.isdigit() or int(index) in gpus):
            found.append((f"{folder}/{name}", f"/dev/{name}"))
    missing = {f"nvidia{gpu}" for gpu in gpus} - {os.path.basename(path) for path, _ in found}
    if missing:
        raise ValueError(f"this machine has no {', '.join(sorted(missing))}")
    return found


def make_layers(plan: Plan, folder: str) -> None:
    """Make a run's private layers in ``folder``."""
    os.makedirs(folder)
    for layer in layers_in(plan, folder).all:
        if layer.path == "/" and not plan.userland.writable:
            shutil.copytree(plan.userland.template, layer.upper, symlinks=True)
        else:
            os.mkdir(layer.upper)
        os.mkdir(layer.work)


def layers_in(plan: Plan, folder: str) -> bwrap.Layers:
    """The layers in ``folder``, over the template of the root and the machine's userland."""
    land = plan.userland
    layers = tuple(
        bwrap.Layer(
            path,
            (land.template if path == "/" else path, *land.between.get(path, ())),
            upper=f"{folder}/{number}",
            work=f"{folder}/{number}.work",
        )
        for number, path in enumerate(("/", *land.overlays))
    )
    return bwrap.Layers(layers, writable=land.writable)


def write_own_files(etc: str, hostname: str, address: str) -> None:
    """The two files of /etc that are the job's own."""
    hosts = (
        f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
    )
    for name, text in (("hosts", hosts), ("hostname", hostname + "\n")):
        with open(f"{etc}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def prepare(plan: Plan, request: Request, layers: bwrap.Layers) -> Prepared:
    """Work out how to start the sandbox.

    Raises ValueError and OSError for what is known to be impossible before.
    """
    given = os.memfd_create("arguments")
    info, info_inside = os.pipe()
    gate_inside, gate = os.pipe()
    passed = [given, info_inside, gate_inside]
    settled = None
    if plan.network.kind == PASTA:
        settled, settled_inside = _settling()
        passed.append(settled_inside)
    passed += [_open_source(source, target) for source, target, _ in request.mounts]
    numbers = passed_numbers(len(passed))
    sources = numbers[len(numbers) - len(request.mounts) :]
    inside = bwrap.Inside(
        hostname=request.hostname,
        working_dir=request.working_dir,
        env=environment(plan, request),
        mounts=[
            (number, target, read_only)
            for number, (_, target, read_only) in zip(sources, request.mounts, strict=True)
        ],
        devices=gpu_devices(plan.device_folder, request.gpus),
        read_only=plan.userland.read_only,
        covered=plan.userland.covered,
        shut=plan.userland.shut,
        shm=request.memory if request.shm else bwrap.SMALL_SHM,
    )
    arguments = bwrap.arguments(
        layers,
        inside,
        user_namespace=plan.user_namespace,
        settled=None if settled is None else numbers[3],
        privileged=request.privileged,
        tty=request.tty,
    )
    os.write(given, b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    os.lseek(given, 0, os.SEEK_SET)
    order = Order(
        command=[
            *("bwrap", "--args", str(numbers[0]), "--info-fd", str(numbers[1])),
            *("--block-fd", str(numbers[2]), *_command(plan, request)),
        ],
        mark=mark(plan.folder, request.job_id, request.run),
        etc=f"{layers.mounted}/etc" if layers.mounted else layers.upper("/etc"),
        hostname=request.hostname,
        cpu=request.cpu,
    )
    return Prepared(order, passed, info=info, settled=settled, gate=gate)


def passed_numbers(count: int) -> range:
    """The numbers that ``count`` descriptors passed to a sandbox's process have in it.

    They are above those of all that it has open when it receives them.
    """
    return range(_FREE + count, _FREE + 2 * count)


def _open_source(source: str, target: str) -> int:
    # By descriptor, and through no symbolic link: other jobs may write beside the volume's folder,
    # and could put a link in its place at any moment.
    try:
        return kernel.open_without_links(source)
    except FileNotFoundError:
        raise ValueError(f"the folder of the volume at {target} does not exist") from None
    except OSError as error:
        raise ValueError(f"the volume at {target} cannot be mounted: {error.strerror}") from None


def _settling() -> tuple[int, int]:
    """A connected pair: the first end is at its end of file, and hangs up with the second."""
    ours, theirs = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)
    return ours.detach(), theirs.detach()


def _command(plan: Plan, request: Request) -> list[str]:
    argv = request.argv or plan.default_argv
    if request.tty:
        # bubblewrap's own processes must not be in the terminal's foreground group: Ctrl-C would
        # kill them. So the command takes the terminal itself, in a session of its own.
        return ["--argv0", "setsid", plan.setsid_tool, "-c", "--", *argv]
    if "=" in argv[0]:  # env would take it for a variable
        return ["/bin/sh", "-c", 'exec "$@"', "sh", *argv]
    # env makes exit codes 127 and 126 with a sentence of what is not found or not executable.
    return ["--argv0", "env", plan.env_tool, "--", *argv]


def mark(folder: str, job_id: str, run: int) -> str:
    """What tells a run's sandbox from that of any other engine, here or inside a job."""
    place = os.stat(folder)
    return f"{place.st_dev}:{place.st_ino}/{job_id}/{run}"


def limit_process(version: int, cpu: float) -> None:
    """Limits that the calling process and its children carry with them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the host's core handler is not for jobs
    if version == 0:
        allowed = sorted(os.sched_getaffinity(0))
        count = max(1, min(len(allowed), math.ceil(cpu)))
        first = os.getpid() % len(allowed)
        os.sched_setaffinity(0, [(allowed * 2)[first + number] for number in range(count)])


def reset_signals() -> None:
    """Undo what Python, we and whoever started the server ignore: it would be inherited."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # the C library keeps some for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
