"""A supervisor between its runs: it makes a berth, waits in it, and comes back after its run."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from dataclasses import dataclass

from neuro.engines.sandbox import kernel, launch, launcher, layout
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.ending import Ending, ExitRecord
from neuro.engines.sandbox.handover import receive_run
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.supervisor import Supervisor

_MOST_RUNS = 100  # one after the other: whatever a run may leave in our memory goes with us


def supervise(
    plan: launch.Plan, name: str, block: Block, zygote: socket.socket, way_back: socket.socket
) -> None:
    """Make the berth ``name``, wait for a run, look after it, and go on with the next berth.

    ``zygote`` is where a run comes from; ``way_back`` leads to where a next berth is asked for.
    Returns when all is cleaned up, and nothing more is wanted of this process.
    """
    mine = holdings(but=zygote.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(_MOST_RUNS):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not _serve(plan, name, block, zygote) or not has_nothing_left(mine):
            return
        kernel.set_name("neuro-idle")
        asked = _come_back(way_back)
        if asked is None:
            return
        kernel.set_name("neuro-berth")
        zygote, name = asked


def _serve(plan: launch.Plan, name: str, block: Block, zygote: socket.socket) -> bool:
    """Make a berth, and look after the run that comes; whether that went as it should."""
    berth = Berth(plan, name, block)
    berth.make(zygote)
    given = receive_run(zygote)
    if given is None:
        berth.discard()
        return False
    request, listener = given
    kernel.set_name("neuro-job")
    folder = layout.run_folder(plan.folder, request.job_id, request.run)
    try:
        try:
            supervisor = Supervisor(plan, request, folder, listener, berth, block)
        except OSError as error:
            berth.discard()
            _say_not_ready(folder, error)
            return False
        return supervisor.run()
    except BaseException:
        import traceback  # large: sleeping runs would hold it

        with open(f"{folder}/fault", "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        return False


@dataclass(frozen=True)
class Holdings:
    """What a process has of the kernel's: its open files by their numbers, and its namespaces.

    A file is told by its device and inode: a number alone may lead to another file by now.
    """

    files: dict[int, tuple[int, int]]
    namespaces: dict[str, str]


def holdings(but: int = -1) -> Holdings:
    """What this process has now, without the descriptor ``but``. Raises OSError."""
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.fstat(int(name))
        except OSError:  # the one that the list was read from
            continue
        files[int(name)] = found.st_dev, found.st_ino
    files.pop(but, None)
    kinds = os.listdir("/proc/self/ns")
    return Holdings(files, {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds})


def has_nothing_left(mine: Holdings) -> bool:
    """Whether nothing of a run is left here: no process, and nothing that is not ``mine``."""
    gc.collect()  # the parts of a supervisor know each other
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    else:
        return False
    try:
        return holdings() == mine
    except OSError:  # no descriptor is left, or its children's namespace has ended
        return False


def _come_back(way_back: socket.socket) -> tuple[socket.socket, str] | None:
    """Wait to be asked for the next berth: the way to the zygote, and the berth's name.

    Returns None where nobody asks.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            socket.send_fds(way_back, [b"%d" % os.getpid()], [theirs.fileno()])
        except OSError:  # the zygote is gone
            return None
    name = ours.recv(256).decode()
    return (ours, name) if name else None


def _say_not_ready(folder: str, error: OSError) -> None:
    """The exit record of a run that could not even be looked after."""
    ending = Ending.not_ready(launcher.reason_of(error))
    record = ExitRecord.of(ending, time.time_ns())
    while True:
        try:
            layout.write_exit(folder, record)
            return
        except FileNotFoundError:  # somebody deleted the folder
            return
        except OSError:
            time.sleep(layout.FULL_SECONDS)
