"""The first process of a run, number 1 in its pid namespace, and its lifeline.

It waits to be shown the second process (``becoming``), follows it into the run's namespaces, and
gives up all rights. Then it does nothing until nobody holds its lifeline any more: its supervisor
let go of it, or is gone. With it the kernel ends all other processes of the run, and buries those
whose parents end before. No process of the run may look into it.

The kernel lets it end only when all of its namespace are buried, and the supervisor's children in
there are the supervisor's to bury: the command, and what ``exec`` starts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from typing import NoReturn

from neuro.engines.sandbox import init_program, kernel, wire

_KINDS = struct.Struct("<I")
_MFD_EXEC = 0x10

_program: int | None = None


def prepare() -> None:
    """Make the program, for ``start`` in all processes that are forked from here on."""
    global _program
    program = init_program.executable(os.uname().machine)
    if program is None or _program is not None:
        return
    try:
        file = _file_of(program)
    except OSError:
        return  # a machine may forbid to execute files without a name (vm.memfd_noexec)
    # It must be tried: where it fails in a new pid namespace, there is no second try. With a
    # lifeline that is no socket the program ends at once.
    try:
        trial = _spawn(file, file)
    except OSError:
        os.close(file)
        return
    _program = file
    try:
        os.waitpid(trial, 0)
    except ChildProcessError:
        pass  # where SIGCHLD is ignored, this is how waiting ends


def _file_of(program: bytes) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        made = os.memfd_create("neuro-init", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all are executable
        made = os.memfd_create("neuro-init", flags)
    file = _high(made)
    os.close(made)
    os.write(file, program)
    # Who may not read what it executes may not look into the process either.
    os.fchmod(file, 0o111)
    everything = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, everything)
    return file


def descriptor() -> int | None:
    """The program's file; None where Python does its work."""
    return _program


def start(lifeline: socket.socket) -> int:
    """Start a first process, a child of ours; its pid.

    Our children must be born in a new pid namespace. ``lifeline`` is its end of a pair of sockets.
    Raises OSError.
    """
    if _program is not None:
        return _spawn(_program, lifeline.fileno())
    pid = os.fork()
    if pid == 0:
        _follow_and_wait(lifeline.fileno())
    return pid


def _spawn(program: int, lifeline: int) -> int:
    end = _high(lifeline)
    try:
        return os.posix_spawn(
            f"/proc/self/fd/{program}",
            ["neuro-init"],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, end, init_program.LIFELINE)],
        )
    finally:
        os.close(end)


def _high(fd: int) -> int:
    """A copy with a number that stands in nobody's way when ``LIFELINE`` gets its own."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, init_program.LIFELINE + 1)


def lead(lifeline: socket.socket, kinds: int) -> None:
    """Let the first process follow this one into its namespaces of these kinds. Raises OSError."""
    process = os.pidfd_open(os.getpid())
    try:
        socket.send_fds(lifeline, [_KINDS.pack(kinds)], [process])
    finally:
        os.close(process)
    if not lifeline.recv(1):
        raise OSError(0, "its first process cannot follow the second")


def _follow_and_wait(end: int) -> NoReturn:
    """What the program does (``init_program``), in a copy of our parent."""
    try:
        kernel.hide_arguments()
        kernel.set_name("neuro-init")
        os.dup2(end, init_program.LIFELINE)
        kernel.close_between(0, init_program.LIFELINE - 1)
        kernel.close_between(init_program.LIFELINE + 1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        lifeline = socket.socket(fileno=init_program.LIFELINE)
        kinds, (process,) = wire.receive_descriptors(lifeline, _KINDS.size, 1)
        try:
            os.setgroups([])
        except PermissionError:
            pass  # a plain user's groups stay
        kernel.setns(process, _KINDS.unpack(kinds)[0])
        os.close(process)
        kernel.become_root_inside()
        kernel.drop_capabilities(())
        kernel.hide_memory()
        lifeline.send(b"e")
        lifeline.recv(1)
        os._exit(0)
    finally:  # nothing may return from here: this is a copy
        os._exit(1)
