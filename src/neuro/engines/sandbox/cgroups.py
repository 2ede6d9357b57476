"""Control groups: one per run, below one base of this installation, in version 2 or version 1.

``hierarchies`` finds out which, and makes the base; where there is none, ``watching`` takes over.
Imported by supervisors: small.

A job may find a way to make groups below its own. So killing and deleting reach all below a group,
by descriptors (paths may be too long) and without recursion.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from neuro.engines.sandbox.removal import Descent

CPU_PERIOD = 100_000  # microseconds, the kernel's default
_ROUNDS = 10  # of killing: a fork between reading and killing needs another one
CONTROL = "control"  # the group around those of control runs; no berth is called so


@dataclass(frozen=True)
class Groups:
    """Where this installation's groups are: ``bases`` by controller; v2 has the one key ""."""

    version: int = 0
    bases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """``cpu`` in cores, ``memory`` in bytes, ``processes`` counts threads too."""

    cpu: float
    memory: int
    processes: int


def of_control(groups: Groups) -> Groups:
    """Where the groups of control runs are: below one that bounds the memory of all together."""
    key = "" if groups.version == 2 else "memory"
    if key not in groups.bases:
        return groups
    return Groups(groups.version, {**groups.bases, key: f"{groups.bases[key]}/{CONTROL}"})


class Group:
    """One run's control group, in as many hierarchies as the machine has."""

    def __init__(self, groups: Groups, name: str) -> None:
        self.version = groups.version
        self._name = name
        self.folders = {key: f"{base}/{name}" for key, base in groups.bases.items()}

    def create(self) -> None:
        """Make the group. Raises OSError."""
        for folder in self.folders.values():
            os.makedirs(folder, exist_ok=True)

    def check(self) -> None:
        """Raise OSError where somebody took the group away."""
        for folder in self.folders.values():
            os.stat(folder)

    def limit(self, limits: Limits) -> None:
        """Set what its processes may use together. Raises OSError."""
        quota = max(1000, int(limits.cpu * CPU_PERIOD))
        self.limit_memory(limits.memory)
        if self.version == 2:
            base = self.folders[""]
            try_write(f"{base}/memory.oom.group", "1")
            write(f"{base}/pids.max", str(limits.processes))
            try_write(f"{base}/cpu.max", f"{quota} {CPU_PERIOD}")
        elif self.version == 1:
            if "pids" in self.folders:
                write(f"{self.folders['pids']}/pids.max", str(limits.processes))
            if "cpu" in self.folders:
                try_write(f"{self.folders['cpu']}/cpu.cfs_quota_us", str(quota))

    def limit_memory(self, memory: int) -> None:
        """Set how many bytes its processes may have together. Raises OSError."""
        if self.version == 2:
            base = self.folders[""]
            write(f"{base}/memory.max", str(memory))
            try_write(f"{base}/memory.swap.max", "0")
        elif self.version == 1:
            folder = self.folders["memory"]
            write(f"{folder}/memory.limit_in_bytes", str(memory))
            try_write(f"{folder}/memory.memsw.limit_in_bytes", str(memory))
            # What waits in connections is counted for itself here.
            try_write(f"{folder}/memory.kmem.tcp.limit_in_bytes", str(memory))

    def move(self, groups: Groups, pid: int) -> None:
        """Become one of other ``groups``, with ``pid``, which is alone in it. Raises OSError."""
        for key, base in groups.bases.items():
            before, folder = self.folders[key], f"{base}/{self._name}"
            if folder != before:
                os.makedirs(folder, exist_ok=True)
                write(f"{folder}/cgroup.procs", str(pid))
                self.folders[key] = folder
                _removed(before)

    def join(self) -> None:
        """Move the calling process in; its children are born there. Raises OSError."""
        for folder in self.folders.values():
            write(f"{folder}/cgroup.procs", "0")

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the group for the memory limit."""
        if self.version == 2:
            return _counter(f"{self.folders['']}/memory.events", "oom_kill") > 0
        if self.version == 1:
            return _counter(f"{self.folders['memory']}/memory.oom_control", "oom_kill") > 0
        return False

    def peak_memory(self) -> int | None:
        """The most bytes that the group ever had, file cache included; None where nobody counts.

        Raises OSError where the group is gone, or the kernel (before 5.19, with v2) does not say.
        """
        if self.version == 2:
            return int(read(f"{self.folders['']}/memory.peak"))
        if self.version == 1:
            return int(read(f"{self.folders['memory']}/memory.max_usage_in_bytes"))
        return None

    def cpu_seconds(self) -> float:
        """Processor time that the group has used. Raises OSError where it is gone."""
        if self.version == 2:
            return _counter(f"{self.folders['']}/cpu.stat", "usage_usec") / 1e6
        folder = self.folders.get("cpuacct")
        return int(read(f"{folder}/cpuacct.usage")) / 1e9 if folder else 0.0

    def memory(self) -> int:
        """Bytes in use, without the file cache that can be dropped at once. Raises OSError."""
        if self.version == 2:
            folder, name, cold = self.folders[""], "memory.current", "inactive_file"
        else:
            folder, name, cold = (
                self.folders["memory"],
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        used = int(read(f"{folder}/{name}"))
        return max(0, used - _counter(f"{folder}/memory.stat", cold))

    def kill(self) -> None:
        """SIGKILL to every process in the group and in those below it."""
        if self.version == 2 and try_write(f"{self.folders['']}/cgroup.kill", "1", create=False):
            return
        for number in range(_ROUNDS):
            if not sum([_kill_each(folder) for folder in self.folders.values()]):
                return
            if number == 0:  # from now on nothing is forked there
                for folder in self.folders.values():
                    try_write(f"{folder}/pids.max", "0", create=False)

    def remove(self, patience: float = 2.0) -> bool:
        """Delete the group and those below it; whether all are gone.

        It must be empty, or become so within ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while not self.removed():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)  # a dying process still holds the group
        return True

    def removed(self) -> bool:
        """``remove`` without waiting."""
        gone = [_removed(folder) for folder in self.folders.values()]
        return all(gone)


def clear(groups: Iterable[Group], patience: float) -> list[Group]:
    """Kill and delete many groups within ``patience`` seconds; those that are there still."""
    deadline = time.monotonic() + patience
    left = list(groups)
    for group in left:
        group.kill()
    while left := [group for group in left if not group.removed()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return left


def names(groups: Groups) -> set[str]:
    """The names of the groups of runs that exist below the bases."""
    found: set[str] = set()
    for base in groups.bases.values():
        try:
            found.update(entry.name for entry in os.scandir(base) if entry.is_dir())
            found.discard(CONTROL)
        except OSError:
            pass
    return found


def remove_bases(groups: Groups) -> None:
    """Delete the installation's own groups if no run is in them."""
    for base in groups.bases.values():
        _removed(base)


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return _has_groups(folder) and _removed_with_all_below(folder)
    return True


def _removed_with_all_below(folder: str) -> bool:
    try:
        for group in _and_below(folder):
            for name in _folders(group):
                try:
                    os.rmdir(name, dir_fd=group)
                except OSError:
                    pass  # a process is in it, or it is gone
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill_each(folder: str) -> int:
    """SIGKILL to all in a group and below it; how many there were."""
    try:
        if not _has_groups(folder):
            return _signal(read(f"{folder}/cgroup.procs"))
        return sum(_signal(read("cgroup.procs", group)) for group in _and_below(folder))
    except OSError:
        return 0  # it is gone


def _signal(pids: str) -> int:
    numbers = [int(pid) for pid in pids.split()]
    for pid in numbers:
        try:
            os.kill(pid, 9)
        except OSError:
            pass
    return len(numbers)


def _has_groups(folder: str) -> bool:
    """Whether there are groups below this one: then its folder has more links than two."""
    try:
        return os.stat(folder).st_nlink != 2
    except OSError:
        return False


def _and_below(folder: str) -> Iterator[int]:
    """Descriptors of the groups below ``folder``, each after those below it, and its own at last.

    Raises OSError where the group is gone.
    """
    above = os.open(os.path.dirname(folder), os.O_PATH | os.O_DIRECTORY)
    try:
        descent = Descent(above, os.path.basename(folder))
    finally:
        os.close(above)
    try:
        pending = [_folders(descent.fd)]
        while True:
            if not pending[-1]:
                yield descent.fd
                pending.pop()
                if not pending:
                    return
                descent.leave()
                continue
            try:
                descent.enter(pending[-1].pop())
            except OSError:
                continue  # it is gone
            pending.append(_folders(descent.fd))
    finally:
        descent.close()


def _folders(group: int) -> list[str]:
    with os.scandir(group) as scan:
        return [entry.name for entry in scan if entry.is_dir(follow_symlinks=False)]


def _counter(path: str, name: str) -> int:
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def read(path: str, folder: int | None = None) -> str:
    """What a file of the kernel says; ``path`` may be below the open ``folder``. Raises OSError."""
    # By hand, here and below: a text file of Python's makes four more calls for each of a dozen
    # files that every run needs, and the first one in a process imports its encoding.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """Tell the kernel. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def try_write(path: str, value: str, *, create: bool = True) -> bool:
    """Whether the kernel took it; without ``create`` not where there is no such file."""
    if not create and not os.path.exists(path):
        return False
    try:
        write(path, value)
    except OSError:
        return False
    return True
