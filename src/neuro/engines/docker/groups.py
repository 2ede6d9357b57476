"""The control group of a container, found by one of its processes."""

from __future__ import annotations

import os

from neuro.engines.sandbox.cgroups import Group, Groups, read

_WANTED = ("memory", "cpu", "cpuacct", "pids")


def group_of(process: int, root: str = "/sys/fs/cgroup") -> Group:
    """The group that a process is in, to be looked at. Raises OSError where that is not seen."""
    places: dict[str, str] = {}
    unified = ""
    for line in read(f"/proc/{process}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            unified = path
        for name in controllers.split(","):
            if name in _WANTED and os.path.isdir(f"{root}/{name}{path}"):
                places[name] = f"{root}/{name}{path}"
    if "memory" in places:
        return _group(1, places)
    return _group(2, {"": f"{root}{unified}"})


def _group(version: int, places: dict[str, str]) -> Group:
    group = Group(Groups(version), "")
    group.folders = places
    return group
