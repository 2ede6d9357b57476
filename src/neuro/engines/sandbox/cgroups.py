"""Control groups: one per run, below one base of this installation, in version 2 or version 1.

Version 2 is used where the memory and pids controllers can be delegated to us, version 1 where its
memory hierarchy is writable; otherwise ``watching`` takes over. Imported by supervisors: small.

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
_NEEDED_V2 = {"memory", "pids"}
_WANTED_V2 = ("memory", "pids", "cpu")
_WANTED_V1 = ("memory", "cpu", "cpuacct", "pids")
_ROUNDS = 10  # of killing: a fork between reading and killing needs another one
_PID_MAX = "/proc/sys/kernel/pid_max"
_FEWEST_PROCESSES = 512


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


def find(installation: str, root: str = "/sys/fs/cgroup") -> Groups:
    """Make this installation's base groups; ``version`` 0 where this machine does not let us."""
    name = f"neuro-{installation}"
    groups = _find_v2(name, root) or _find_v1(name, root) or Groups()
    base = groups.bases.get("" if groups.version == 2 else "pids")
    if base is not None:  # jobs together leave some of the machine's process ids to the machine
        _try_write(f"{base}/pids.max", str(_pid_max() * 3 // 4))
    return groups


def prospect(root: str = "/sys/fs/cgroup") -> tuple[int, set[str]]:
    """The version that ``find`` would use and its controllers, with nothing changed.

    Version 0 where this machine does not let us make groups.
    """
    for parent in _parents_v2(root):
        try:
            controllers = set(_read(f"{parent}/cgroup.controllers").split())
        except OSError:  # /proc may name a group that is not to be seen from a container
            continue
        change = os.access(f"{parent}/cgroup.subtree_control", os.W_OK)
        if controllers >= _NEEDED_V2 and change and _takes_groups(parent):
            return 2, controllers & set(_WANTED_V2)
    found = {name for name in _WANTED_V1 if _takes_groups(f"{root}/{name}")}
    return (1, found) if "memory" in found else (0, set())


def _takes_groups(parent: str) -> bool:
    trial = f"{parent}/neuro-trial-{os.getpid()}"
    try:
        if not os.path.exists(f"{parent}/cgroup.procs"):
            return False
        os.mkdir(trial)
        os.rmdir(trial)
    except OSError:
        return False
    return True


def process_limit(wanted: int) -> int:
    """How many processes and threads one run may have: ``wanted``, but a quarter of the machine's.

    A machine with few process ids still gives each run 512.
    """
    return min(wanted, max(_FEWEST_PROCESSES, _pid_max() // 4))


def _pid_max() -> int:
    return int(_read(_PID_MAX))


def _find_v2(name: str, root: str) -> Groups | None:
    for parent in _parents_v2(root):
        try:
            if not set(_read(f"{parent}/cgroup.controllers").split()) >= _NEEDED_V2:
                continue
            _delegate(parent)
            base = f"{parent}/{name}"
            os.makedirs(base, exist_ok=True)
            _delegate(base)
        except OSError:
            continue
        return Groups(2, {"": base})
    return None


def _parents_v2(root: str) -> list[str]:
    if not os.path.exists(f"{root}/cgroup.controllers"):
        return []
    parents = [root]
    own = _own_v2_path()
    if own not in (None, "/"):
        # A plain user owns a group only where systemd delegated one; root has the true root.
        parents.insert(0 if os.geteuid() else 1, root + str(own))
    return parents


def _own_v2_path() -> str | None:
    try:
        for line in _read("/proc/self/cgroup").splitlines():
            if line.startswith("0::"):
                return line[3:]
    except OSError:
        pass
    return None


def _delegate(group: str) -> None:
    """Let children of ``group`` have limits. Processes in it move to a leaf first: v2's rule."""
    present = set(_read(f"{group}/cgroup.controllers").split())
    enabled = set(_read(f"{group}/cgroup.subtree_control").split())
    missing = [name for name in _WANTED_V2 if name in present - enabled]
    if not missing:
        return
    change = " ".join(f"+{name}" for name in missing)
    try:
        _write(f"{group}/cgroup.subtree_control", change)
    except OSError:
        leaf = f"{group}/neuro-server"
        os.makedirs(leaf, exist_ok=True)
        for pid in _read(f"{group}/cgroup.procs").split():
            try:
                _write(f"{leaf}/cgroup.procs", pid)
            except ProcessLookupError:
                pass
        _write(f"{group}/cgroup.subtree_control", change)


def _find_v1(name: str, root: str) -> Groups | None:
    bases: dict[str, str] = {}
    for controller in _WANTED_V1:
        base = f"{root}/{controller}/{name}"
        if not os.path.exists(f"{root}/{controller}/cgroup.procs"):
            continue
        try:
            os.makedirs(base, exist_ok=True)
            if controller == "memory":
                _try_write(f"{base}/memory.use_hierarchy", "1")
        except OSError:
            continue
        bases[controller] = base
    return Groups(1, bases) if "memory" in bases else None


class Group:
    """One run's control group, in as many hierarchies as the machine has."""

    def __init__(self, groups: Groups, name: str) -> None:
        self.version = groups.version
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
        if self.version == 2:
            base = self.folders[""]
            _write(f"{base}/memory.max", str(limits.memory))
            _try_write(f"{base}/memory.swap.max", "0")
            _try_write(f"{base}/memory.oom.group", "1")
            _write(f"{base}/pids.max", str(limits.processes))
            _try_write(f"{base}/cpu.max", f"{quota} {CPU_PERIOD}")
        elif self.version == 1:
            memory = self.folders["memory"]
            _write(f"{memory}/memory.limit_in_bytes", str(limits.memory))
            _try_write(f"{memory}/memory.memsw.limit_in_bytes", str(limits.memory))
            # What waits in connections is counted for itself here.
            _try_write(f"{memory}/memory.kmem.tcp.limit_in_bytes", str(limits.memory))
            if "pids" in self.folders:
                _write(f"{self.folders['pids']}/pids.max", str(limits.processes))
            if "cpu" in self.folders:
                _try_write(f"{self.folders['cpu']}/cpu.cfs_quota_us", str(quota))

    def join(self) -> None:
        """Move the calling process in; its children are born there. Raises OSError."""
        for folder in self.folders.values():
            _write(f"{folder}/cgroup.procs", "0")

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
            return int(_read(f"{self.folders['']}/memory.peak"))
        if self.version == 1:
            return int(_read(f"{self.folders['memory']}/memory.max_usage_in_bytes"))
        return None

    def cpu_seconds(self) -> float:
        """Processor time that the group has used. Raises OSError where it is gone."""
        if self.version == 2:
            return _counter(f"{self.folders['']}/cpu.stat", "usage_usec") / 1e6
        folder = self.folders.get("cpuacct")
        return int(_read(f"{folder}/cpuacct.usage")) / 1e9 if folder else 0.0

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
        used = int(_read(f"{folder}/{name}"))
        return max(0, used - _counter(f"{folder}/memory.stat", cold))

    def kill(self) -> None:
        """SIGKILL to every process in the group and in those below it."""
        if self.version == 2 and _try_write(f"{self.folders['']}/cgroup.kill", "1", create=False):
            return
        for number in range(_ROUNDS):
            if not sum([_kill_each(folder) for folder in self.folders.values()]):
                return
            if number == 0:  # from now on nothing is forked there
                for folder in self.folders.values():
                    _try_write(f"{folder}/pids.max", "0", create=False)

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
    """The names of the groups that exist below the bases."""
    found: set[str] = set()
    for base in groups.bases.values():
        try:
            found.update(entry.name for entry in os.scandir(base) if entry.is_dir())
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
            return _signal(_read(f"{folder}/cgroup.procs"))
        return sum(_signal(_read("cgroup.procs", group)) for group in _and_below(folder))
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
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(path: str, folder: int | None = None) -> str:
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


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _try_write(path: str, value: str, *, create: bool = True) -> bool:
    if not create and not os.path.exists(path):
        return False
    try:
        _write(path, value)
    except OSError:
        return False
    return True
