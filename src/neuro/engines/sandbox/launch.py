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

from neuro.engines.sandbox import bwrap, cgroups, kernel, network
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.userland import Userland

SHARED, OWN, PASTA = "shared", "veth", "pasta"
MARK = "NEURO_RUN"  # in the environment of bubblewrap's own processes, not of the job's


@dataclass(frozen=True)
class Network:
    """How runs reach the world. ``tool`` is pasta's path.

    ``host_port`` is the one port of this machine's loopback that pasta carries into each run.
    """

    kind: str = SHARED
    subnet: str = ""
    mtu: int = 1500
    tool: str = ""
    host_address: str = "127.0.0.1"
    host_port: int = 0


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
class Launched:
    """The sandbox's outer process, and what it tells of its progress.

    ``info`` will carry the pid of its init. ``settled`` hangs up when its network namespace is
    ready for pasta (None where pasta is not used). ``gate`` is the writing end of a pipe that the
    sandbox reads one byte from when all is set up, just before it becomes the job's command.
    """

    pid: int
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


def prepare_layers(plan: Plan, run_folder: str) -> bwrap.Layers:
    """Make the run's private layers over the template of its root and the machine's userland."""
    folder = f"{run_folder}/layers"
    os.mkdir(folder)
    layers = []
    for number, path in enumerate(("/", *plan.userland.overlays)):
        upper, work = f"{folder}/{number}", f"{folder}/{number}.work"
        if path == "/" and not plan.userland.writable:
            shutil.copytree(plan.userland.template, upper, symlinks=True)
        else:
            os.mkdir(upper)
        os.mkdir(work)
        sources = (plan.userland.template,) if path == "/" else (path,)
        layers.append(
            bwrap.Layer(path, (*sources, *plan.userland.between.get(path, ())), upper, work)
        )
    return bwrap.Layers(tuple(layers), writable=plan.userland.writable)


def _write_own_files(request: Request, layers: bwrap.Layers, address: str) -> None:
    """The two files of /etc that are the job's own."""
    hosts = (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"{address}\t{request.hostname}\n"
    )
    for name, text in (("hosts", hosts), ("hostname", request.hostname + "\n")):
        with open(f"{layers.upper('/etc')}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def launch(
    plan: Plan,
    request: Request,
    layers: bwrap.Layers,
    group: cgroups.Group,
    streams: tuple[int, int],
) -> Launched:
    """Start the sandbox with ``streams`` as its stdin and output (both errors and results).

    Raises ValueError and OSError for what is known to be impossible before.
    """
    mounts = [
        (_open_source(source, target), target, read_only)
        for source, target, read_only in request.mounts
    ]
    inside = bwrap.Inside(
        hostname=request.hostname,
        working_dir=request.working_dir,
        env=environment(plan, request),
        mounts=mounts,
        devices=gpu_devices(plan.device_folder, request.gpus),
        read_only=plan.userland.read_only,
        covered=plan.userland.covered,
        shut=plan.userland.shut,
        shm=request.memory if request.shm else bwrap.SMALL_SHM,
    )
    settled, settled_inside = _settling() if plan.network.kind == PASTA else (None, None)
    arguments = bwrap.arguments(
        layers,
        inside,
        user_namespace=plan.user_namespace,
        settled=settled_inside,
        privileged=request.privileged,
    )
    given = os.memfd_create("arguments", 0)
    with open(os.dup(given), "wb") as file:
        file.write(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    os.lseek(given, 0, os.SEEK_SET)
    info, info_inside = os.pipe()
    gate_inside, gate = os.pipe()
    command = [
        *("bwrap", "--args", str(given), "--info-fd", str(info_inside)),
        *("--block-fd", str(gate_inside), *_command(plan, request)),
    ]
    passed = [given, info_inside, gate_inside, *(source for source, _, _ in mounts)]
    if settled_inside is not None:
        passed.append(settled_inside)
    pid = os.fork()
    if pid == 0:
        try:
            for fd in passed:
                os.set_inheritable(fd, True)
            _become(plan, request, layers, group, streams, command)
        except BaseException as error:  # nothing may return from here: this is a copy
            os.write(streams[1], f"the sandbox cannot start: {error}\n".encode())
        finally:
            os._exit(1)
    for fd in passed:
        os.close(fd)
    return Launched(pid=pid, info=info, settled=settled, gate=gate)


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


def _become(
    plan: Plan,
    request: Request,
    layers: bwrap.Layers,
    group: cgroups.Group,
    streams: tuple[int, int],
    command: list[str],
) -> None:
    os.setsid()
    group.join()
    address = "127.0.1.1"
    if plan.network.kind == OWN:
        address = network.enter_new(plan.network.subnet, plan.network.mtu)
    _write_own_files(request, layers, address)
    limit_process(plan.groups.version, request.cpu)
    if os.geteuid() == 0:
        os.setgroups([])
    reset_signals()
    os.dup2(streams[0], 0)
    os.dup2(streams[1], 1)
    os.dup2(streams[1], 2)
    os.chdir("/")
    os.execve(plan.bwrap, command, {MARK: mark(plan.folder, request.job_id, request.run)})


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
