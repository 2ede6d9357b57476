"""Where this machine lets us make control groups, and the first of them: those around all runs'.

Version 2 is used where the memory and pids controllers can be delegated to us, version 1 where its
memory hierarchy is writable; otherwise ``watching`` takes over.
"""

from __future__ import annotations

import os

from neuro.engines.sandbox.cgroups import CONTROL, Group, Groups, read, try_write, write

_NEEDED_V2 = {"memory", "pids"}
_WANTED_V2 = ("memory", "pids", "cpu")
_WANTED_V1 = ("memory", "cpu", "cpuacct", "pids")
_PID_MAX = "/proc/sys/kernel/pid_max"
_FEWEST_PROCESSES = 512


def find(installation: str, root: str = "/sys/fs/cgroup") -> Groups:
    """Make this installation's base groups; ``version`` 0 where this machine does not let us."""
    name = f"neuro-{installation}"
    groups = _find_v2(name, root) or _find_v1(name, root) or Groups()
    base = groups.bases.get("" if groups.version == 2 else "pids")
    if base is not None:  # jobs together leave some of the machine's process ids to the machine
        try_write(f"{base}/pids.max", str(_pid_max() * 3 // 4))
    return groups


def bound_control(groups: Groups, memory: int) -> None:
    """Make the group around those of control runs, and set its limit in bytes. Raises OSError.

    Where it is full, the kernel ends whichever process in it has most.
    """
    key = "" if groups.version == 2 else "memory"
    if key in groups.bases:
        around = Group(Groups(groups.version, {key: groups.bases[key]}), CONTROL)
        around.create()
        if groups.version == 2:
            _delegate(around.folders[key])
        around.limit_memory(memory)


def prospect(root: str = "/sys/fs/cgroup") -> tuple[int, set[str]]:
    """The version that ``find`` would use and its controllers, with nothing changed.

    Version 0 where this machine does not let us make groups.
    """
    for parent in _parents_v2(root):
        try:
            controllers = set(read(f"{parent}/cgroup.controllers").split())
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
    return int(read(_PID_MAX))


def _find_v2(name: str, root: str) -> Groups | None:
    for parent in _parents_v2(root):
        try:
            if not set(read(f"{parent}/cgroup.controllers").split()) >= _NEEDED_V2:
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
        for line in read("/proc/self/cgroup").splitlines():
            if line.startswith("0::"):
                return line[3:]
    except OSError:
        pass
    return None


def _delegate(group: str) -> None:
    """Let children of ``group`` have limits. Processes in it move to a leaf first: v2's rule."""
    present = set(read(f"{group}/cgroup.controllers").split())
    enabled = set(read(f"{group}/cgroup.subtree_control").split())
    missing = [name for name in _WANTED_V2 if name in present - enabled]
    if not missing:
        return
    change = " ".join(f"+{name}" for name in missing)
    try:
        write(f"{group}/cgroup.subtree_control", change)
    except OSError:
        leaf = f"{group}/neuro-server"
        os.makedirs(leaf, exist_ok=True)
        for pid in read(f"{group}/cgroup.procs").split():
            try:
                write(f"{leaf}/cgroup.procs", pid)
            except ProcessLookupError:
                pass
        write(f"{group}/cgroup.subtree_control", change)


def _find_v1(name: str, root: str) -> Groups | None:
    bases: dict[str, str] = {}
    for controller in _WANTED_V1:
        base = f"{root}/{controller}/{name}"
        if not os.path.exists(f"{root}/{controller}/cgroup.procs"):
            continue
        try:
            os.makedirs(base, exist_ok=True)
            if controller == "memory":
                try_write(f"{base}/memory.use_hierarchy", "1")
        except OSError:
            continue
        bases[controller] = base
    return Groups(1, bases) if "memory" in bases else None
