"""Limits where no control group can be had: rlimits, and looking at the processes' memory.

The kernel has no limit for the memory of a tree of processes but control groups. So this looks, the
more often the nearer the run is to its limit, and kills too late rather than never.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.loop import Loop

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_SELDOM, _OFTEN = 1.0, 0.1  # seconds
_REST = 10  # times as long as a look took, until the next one
_BLOCK = 512  # bytes, the unit of st_blocks


class Watch:
    """Keeps one run's processes below ``memory`` bytes, and on ``cores``.

    What lies in files in memory counts as much as what processes hold.
    """

    def __init__(
        self,
        loop: Loop,
        init: int,
        *,
        cores: set[int],
        memory: int,
        on_excess: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._init = init
        self._cores = cores
        self._memory = memory
        self._on_excess = on_excess
        self._ended = False
        self._loop.after(_OFTEN, self._look)

    def end(self) -> None:
        """Look no more."""
        self._ended = True

    def _look(self) -> None:
        if self._ended:
            return
        began = time.process_time()
        keep_on(self._cores, self._init)
        in_files = files_in_memory(self._init)
        used = resident(self._init) + in_files
        if used > self._memory:
            used = proportional(self._init, in_files)
        if used > self._memory:
            self._ended = True
            self._on_excess()
            return
        pause = _OFTEN if used > self._memory // 2 else _SELDOM
        self._loop.after(max(pause, (time.process_time() - began) * _REST), self._look)


def keep_on(cores: set[int], init: int) -> None:
    """Bring back the processes that chose other cores for themselves."""
    for pid in processes(init):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                if not os.sched_getaffinity(int(task)) <= cores:
                    os.sched_setaffinity(int(task), cores)
        except OSError:
            pass


def files_in_memory(init: int) -> int:
    """Bytes in the tmpfs of the run (/dev, /dev/shm, perhaps /run), and in files without a name.

    The latter are ``memfd_create``'s that a process has open. What is on its way through a socket
    is in no process, so it is not found.
    """
    total = sum(_without_a_name(init).values())
    try:
        root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return total + _in_nested_fences(init)  # it is gone
    try:
        for path in ("dev", "dev/shm", "run"):
            total += _used_in_memory(root, path)
    finally:
        os.close(root)
    return total + _in_nested_fences(init)


def _used_in_memory(root: int, path: str) -> int:
    """Bytes of a tmpfs; none where there is something else, as an image has what it likes in /run.

    A link there would lead to a place of this machine's.
    """
    try:
        place = kernel.open_without_links(path, os.O_PATH | os.O_DIRECTORY, root)
    except OSError:
        return 0
    try:
        if not kernel.is_in_memory(f"/proc/self/fd/{place}"):
            return 0
        found = os.fstatvfs(place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    except OSError:
        return 0
    finally:
        os.close(place)


def _in_nested_fences(init: int) -> int:
    """Bytes in the tmpfs of mount namespaces that a run has made of its own, to build an image."""
    total = 0
    seen, devices = {_mounts_of(init), None}, set()
    for pid in processes(init):
        namespace = _mounts_of(pid)
        if namespace in seen:
            continue
        seen.add(namespace)
        for path in _in_memory(pid):
            try:
                place = f"/proc/{pid}/root{path}"
                device = os.stat(place).st_dev
                if device not in devices and kernel.is_in_memory(place):
                    devices.add(device)
                    found = os.statvfs(place)
                    total += (found.f_blocks - found.f_bfree) * found.f_frsize
            except (OSError, ValueError):
                continue  # it is gone
    return total


def _mounts_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _in_memory(pid: int) -> list[str]:
    """Where a process has file systems in memory."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return [_plain(line.split(" ", 5)[4]) for line in file if " - tmpfs " in line]
    except OSError:
        return []


def _without_a_name(init: int) -> dict[tuple[int, int], int]:
    """The sizes of such files, by device and number: many descriptors may be one file's."""
    found: dict[tuple[int, int], int] = {}
    for pid in processes(init):
        for path in _descriptors(pid):
            try:
                if os.readlink(path).startswith("/memfd:"):
                    status = os.stat(path)
                    if not status.st_nlink:
                        found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
            except OSError:
                continue  # it is closed
    return found


def _descriptors(pid: int) -> Iterator[str]:
    """The descriptors of a process, and of its threads, each of which may have its own."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for fd in os.listdir(f"/proc/{pid}/task/{task}/fd"):
                yield f"/proc/{pid}/task/{task}/fd/{fd}"
    except OSError:
        pass  # it is gone


def _plain(path: str) -> str:
    r"""A path as mountinfo writes it, without its escapes.

    >>> _plain(r"/a\040b\134")
    '/a b\\'
    """
    for written, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        path = path.replace(f"\\{written}", character)
    return path


def processes(init: int) -> Iterator[int]:
    """The processes of the run whose first one is ``init``; none where that is gone.

    All of them descend from its supervisor, whose other children are in its own pid namespace.
    Whose namespace cannot be seen is one of the run's, which made itself unreadable.
    """
    supervisor = _parent(init)
    outside = _pid_namespace(supervisor)
    waiting = [
        pid for pid in _children(supervisor) if not outside or _pid_namespace(pid) != outside
    ]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += _children(pid)


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


def _children(pid: int | None) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def _pid_namespace(pid: int | None) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def resident(init: int) -> int:
    """Bytes resident in the processes, shared pages counted in each."""
    return sum(map(_resident, processes(init)))


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def proportional(init: int, in_files: int = 0) -> int:
    """Bytes resident in the processes, shared pages divided among those who share them.

    ``in_files`` are bytes in files in memory, whose pages processes may share as well.
    """
    total = shared = 0
    for pid in processes(init):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                    elif line.startswith("Pss_Shmem:"):
                        shared += int(line.split()[1]) * 1024
        except OSError:
            total += _resident(pid)  # it is gone, or made itself unreadable
    return total - shared + max(shared, in_files)


def cpu_seconds(init: int) -> float:
    """Processor time of the processes and of their children that are gone."""
    total = 0
    for pid in processes(init):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            total += sum(int(field) for field in fields[11:15])
        except (OSError, ValueError):
            pass
    return total / _TICKS
