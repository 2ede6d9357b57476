"""The first process of a run, number 1 in its pid namespace: it waits for the others.

It lets another one make everything (``becoming``), follows it into the run's namespaces, gives up
all rights, and tells how the command ended. The kernel ends all other processes of the run with it,
and it with its supervisor. No process of the run may look into it. There is one for each run, so it
does little: what a fork of Python touches is copied, and what it copies is a sleeping run's memory.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import NoReturn

from neuro.engines.sandbox import becoming, cgroups, kernel, launch, reaper
from neuro.engines.sandbox.identities import Block

_ABOVE = 10
STATUS = struct.Struct("<i")  # of the command, as ``os.wait`` tells it


def main(
    plan: launch.Plan, block: Block, group: cgroups.Group, folder: str, channel: socket.socket
) -> NoReturn:
    """Be the first process; ``channel`` leads to the supervisor. Does not return.

    The run will be in ``group``, its users are those of ``block``, its private files in ``folder``.
    """
    try:
        kernel.die_with_parent()
        kernel.hide_arguments()
        made, tell_made = os.pipe()
        entered, tell_entered = os.pipe()
        command = kernel.clone(0)
        if command == 0:

            def turn() -> None:
                os.write(tell_made, b"m")
                os.close(tell_entered)
                if not os.read(entered, 1):
                    os._exit(1)

            os.close(made)
            becoming.main(plan, block, group, folder, channel, turn)
        os.close(tell_made)
        if os.read(made, 1):
            _look_after(plan, channel, tell_entered, command)
    finally:  # nothing may return from here: this is a copy
        os._exit(1)


def _look_after(plan: launch.Plan, channel: socket.socket, entered: int, command: int) -> None:
    """Wait for the command, bury whatever else ends here, and tell the command's status."""
    kernel.hide_memory()
    kernel.enter_namespaces(command, launch.namespaces(plan))
    entered, program = _keep_only(channel.fileno(), entered, reaper.descriptor())
    kernel.drop_capabilities(())  # the program makes three kinds of calls: no filter is needed
    kernel.die_with_parent()  # the kernel forgot it when the rights changed
    os.write(entered, b"e")
    os.close(entered)
    reaper.become(program)
    while True:
        pid, status = os.wait()
        if pid == command:
            os.write(reaper.TELL, STATUS.pack(status))
            os._exit(0)


def _keep_only(tell: int, entered: int, program: int | None) -> tuple[int, int | None]:
    """Close all else: what a process holds open outlives it, and this one outlives the command.

    ``tell`` gets the number that the reaper writes to; the others have new ones.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (tell, entered)]
    if program is not None:
        kept.append(fcntl.fcntl(program, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
    for number in range(3):
        os.dup2(null, number)
    os.dup2(kept[0], reaper.TELL)
    first = reaper.TELL + 1
    for fd in sorted(kept[1:]):
        kernel.close_between(first, fd - 1)
        first = fd + 1
    kernel.close_between(first)
    return kept[1], kept[2] if program is not None else None
