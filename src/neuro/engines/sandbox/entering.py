"""Entering a running sandbox: its namespaces, its group, with no more rights than the job has."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import cgroups, kernel, launcher
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.launch import (
    Plan,
    Request,
    environment,
    namespaces,
    process_limit,
)
from neuro.engines.sandbox.launcher import Command

_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441


def execute(
    plan: Plan,
    request: Request,
    block: Block,
    group: cgroups.Group,
    init: int,
    argv: Sequence[str],
    streams: tuple[int, int, int],
    word: int,
    *,
    tty: bool,
) -> int:
    """Start ``argv`` inside the sandbox of ``init``; its pid, a child of ours. Raises OSError.

    Whether it began is told through ``word`` (see ``launcher.refusal``). A first child enters the
    namespaces and forks the process, because only children are born in another pid namespace. It
    then ends and, as we are a subreaper, its child becomes ours.
    """
    env = environment(plan, request)
    if tty:
        env.setdefault("TERM", "xterm-256color")
    try:
        command = Command(
            argv,
            env,
            request.working_dir,
            tty=tty,
            privileged=request.privileged,
            filter_program=plan.filter_program,
            processes=process_limit(plan),
            user=None if request.layers is None else request.user,
            single_user=plan.plain,
            or_root=True,
        )
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    block.give_pipes(streams)
    answer, answer_inside = os.pipe()
    try:
        first = os.fork()
    except OSError:
        os.close(answer)
        os.close(answer_inside)
        raise
    if first == 0:
        try:
            kernel.hide_memory()  # until the command begins we are a copy of the supervisor
            kernel.hide_arguments()
            _enter(plan, group, init)
            second = os.fork()
            if second == 0:
                launcher.become(command, streams, word)
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
    if not plan.plain:
        os.setgroups([])
    # All at once: nothing of this process is in between, with rights here and a root there.
    kernel.enter_namespaces(init, namespaces(plan) | kernel.CLONE_NEWPID)


def open_terminal(init: int) -> tuple[int, int]:
    """A new terminal (master, slave) of the sandbox's own, so that it has a name in there.

    One of the machine's where the sandbox cannot be looked into. Raises OSError, also where the
    sandbox has no more: those of the machine are not a job's to use up.
    """
    try:
        return _open_own_terminal(init)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return os.openpty()


def _open_own_terminal(init: int) -> tuple[int, int]:
    root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        master = kernel.open_without_links("dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, root)
    finally:
        os.close(root)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave


def socket_inside(init: int, client: socket.socket, *, plain: bool) -> None:
    """Hand the engine a TCP socket that lives in the run's network. Raises OSError."""
    if plain:
        # A user namespace cannot be left again, so a child goes in.
        pid = os.fork()
        if pid == 0:
            try:
                kernel.hide_memory()
                kernel.enter_namespaces(init, kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
                _hand_over(client)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        return
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(target, kernel.CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            _hand_over(client)
        finally:
            kernel.setns(home, kernel.CLONE_NEWNET)
    finally:
        os.close(home)


def _hand_over(client: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as inside:
        socket.send_fds(client, [b"s"], [inside.fileno()])
