"""Entering a running sandbox: its namespaces, its group, with no more rights than the job has."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import termios
from collections.abc import Sequence

from neuro.engines.sandbox import cgroups, kernel
from neuro.engines.sandbox.launch import Plan, Request, environment, reset_signals

_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
_NAMESPACES = (
    ("cgroup", kernel.CLONE_NEWCGROUP),
    ("ipc", kernel.CLONE_NEWIPC),
    ("uts", kernel.CLONE_NEWUTS),
    ("net", kernel.CLONE_NEWNET),
    ("pid", kernel.CLONE_NEWPID),
    ("mnt", kernel.CLONE_NEWNS),
)


def execute(
    plan: Plan,
    request: Request,
    group: cgroups.Group,
    init: int,
    argv: Sequence[str],
    streams: tuple[int, int, int],
    *,
    tty: bool,
) -> int:
    """Start ``argv`` inside the sandbox of ``init``; its pid, a child of ours. Raises OSError.

    A first child enters the namespaces and forks the process, because only children are born in
    another pid namespace. It then ends and, as we are a subreaper, its child becomes ours.
    """
    answer, answer_inside = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            kernel.hide_memory()  # until the command begins we are a copy of the supervisor
            _enter(plan, group, init)
            second = os.fork()
            if second == 0:
                _become(plan, request, argv, streams, tty=tty)
            os.write(answer_inside, struct.pack("=i", second))
        except OSError as error:
            os.write(answer_inside, struct.pack("=i", -(error.errno or 5)))
        finally:
            os._exit(0)
    os.close(answer_inside)
    reply = os.read(answer, 4)
    os.close(answer)
    os.waitpid(first, 0)
    pid = int(struct.unpack("=i", reply)[0]) if len(reply) == 4 else -5
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _enter(plan: Plan, group: cgroups.Group, init: int) -> None:
    group.join()
    if plan.groups.version == 0:
        os.sched_setaffinity(0, os.sched_getaffinity(init))
    if plan.user_namespace:
        _enter_one(init, "user", kernel.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    else:
        os.setgroups([])
    descriptors = [
        (os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for name, flag in _NAMESPACES
        if not _same(init, name)
    ]
    for fd, flag in descriptors:
        kernel.setns(fd, flag)


def _enter_one(pid: int, name: str, flag: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(fd, flag)
    finally:
        os.close(fd)


def _same(pid: int, name: str) -> bool:
    """Whether the job shares this namespace with us (then a plain user may not even enter it)."""
    return os.stat(f"/proc/{pid}/ns/{name}").st_ino == os.stat(f"/proc/self/ns/{name}").st_ino


def _become(
    plan: Plan, request: Request, argv: Sequence[str], streams: tuple[int, int, int], *, tty: bool
) -> None:
    """Turn this process into the command. Does not return."""
    code = 126
    try:
        os.setsid()
        if tty:
            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for target, source in enumerate(streams):
            os.dup2(source, target)
        env = environment(plan, request)
        if tty:
            env.setdefault("TERM", "xterm-256color")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if plan.groups.version == 0:
            resource.setrlimit(resource.RLIMIT_NPROC, (plan.processes, plan.processes))
        try:
            os.chdir(request.working_dir)
        except OSError:
            os.chdir("/")
        reset_signals()
        keep = tuple(kernel.PRIVILEGED.values()) if request.privileged else ()
        kernel.drop_capabilities(keep)
        os.execvpe(argv[0], list(argv), env)
    except FileNotFoundError:
        code = 127
        os.write(2, f"exec: {argv[0]}: command not found\n".encode())
    except OSError as error:
        os.write(2, f"exec: {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def open_terminal(init: int) -> tuple[int, int]:
    """A new terminal (master, slave) of the sandbox's own, so that it has a name in there.

    One of the machine's where the sandbox cannot be looked into.
    """
    try:
        root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            master = kernel.open_without_links("dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, root)
        finally:
            os.close(root)
    except OSError:
        return os.openpty()
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        return os.openpty()
    return master, slave


def socket_inside(plan: Plan, init: int, client: socket.socket) -> None:
    """Hand the engine a TCP socket that lives in the run's network. Raises OSError."""
    if not plan.user_namespace:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter_one(init, "net", kernel.CLONE_NEWNET)
            try:
                _hand_over(client)
            finally:
                kernel.setns(home, kernel.CLONE_NEWNET)
        finally:
            os.close(home)
        return
    # A user namespace cannot be left again, so a child goes in.
    pid = os.fork()
    if pid == 0:
        try:
            kernel.hide_memory()
            target = os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _enter_one(init, "user", kernel.CLONE_NEWUSER)
            kernel.setns(target, kernel.CLONE_NEWNET)
            _hand_over(client)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _hand_over(client: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as inside:
        socket.send_fds(client, [b"s"], [inside.fileno()])


def main_process(init: int) -> int | None:
    """The process that is number 2 in the pid namespace of ``init``."""
    try:
        with open(f"/proc/{init}/task/{init}/children", encoding="ascii") as file:
            children = file.read().split()
        for child in children:
            with open(f"/proc/{child}/status", encoding="ascii", errors="replace") as file:
                for line in file:
                    if line.startswith("NSpid:") and line.split()[-1] == "2":
                        return int(child)
    except OSError:
        pass
    return None
