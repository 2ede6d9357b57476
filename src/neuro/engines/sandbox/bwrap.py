"""bubblewrap's arguments: a pure function from what a run needs to a list of strings.

They are handed over by ``--args FD``, so neither environment nor secrets are in a command line.
Only the job's own command is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuro.engines.sandbox.kernel import PRIVILEGED

SMALL_SHM = 64 << 20
_RUN_SIZE = 256 << 20
# The kernel asks for no capability here, only for uid 0, which a job of a root server has: one line
# to core_pattern would be a program of its choice, run on the host by the host's root. bubblewrap
# covers the same four, but not where the folder itself looks read-only, as /proc/sys does.
_FROZEN = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
# What uid 0 could read without capabilities (the list is Docker's).
_COVERED_FILES = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
)
_COVERED_FOLDERS = ("/proc/scsi", "/proc/acpi")
COVERED_IN_SYS = ("/sys/firmware", "/sys/kernel/debug")


@dataclass(frozen=True)
class Layer:
    """A private folder ``upper`` over ``sources`` (the lowest first), seen at ``path``."""

    path: str
    sources: Sequence[str]
    upper: str
    work: str


@dataclass(frozen=True)
class Layers:
    """All of a run's, the root first. ``writable`` is whether the file system can hold them.

    ``mounted`` is where all of them, /dev and /sys are mounted already ("" if nowhere).
    """

    all: Sequence[Layer]
    writable: bool
    mounted: str = ""

    def upper(self, path: str) -> str:
        """The private folder of the layer at ``path``."""
        return next(layer.upper for layer in self.all if layer.path == path)


@dataclass(frozen=True)
class Inside:
    """What the job finds. ``mounts`` are (open source, target, read only); ``shm`` is bytes."""

    hostname: str
    working_dir: str
    env: Mapping[str, str]
    mounts: Sequence[tuple[int, str, bool]]
    devices: Sequence[tuple[str, str]]
    read_only: Sequence[str]
    covered: Sequence[str]
    shut: Sequence[str]
    shm: int


def arguments(
    layers: Layers,
    inside: Inside,
    *,
    user_namespace: bool,
    settled: int | None,
    privileged: bool,
    tty: bool,
) -> list[str]:
    """Everything but descriptors and the command. Raises ValueError for what cannot be mounted.

    ``settled`` asks for a new network; it is a descriptor that is read to its end and closed when
    loopback is up in it (nobody may configure the network at the same time).
    """
    root, *others = layers.all if not layers.mounted else (None,)
    return [
        *_namespaces(inside.hostname, user_namespace, settled is not None, privileged),
        *(_layer(root, layers) if root else ("--dev-bind", layers.mounted, "/")),
        # A file of no bytes, which /run will hide.
        *(("--file", str(settled), "/run/settled") if settled is not None else ()),
        *(part for layer in others for part in _layer(layer, layers)),
        *_read_only(inside),
        *("--proc", "/proc"),
        # A terminal also needs a console, which is a name of the terminal itself.
        *(("--dev", "/dev") if tty or not layers.mounted else ()),
        *("--perms", "1777", "--size", str(inside.shm), "--tmpfs", "/dev/shm"),  # noqa: S108
        *(() if layers.mounted else _system()),
        *("--perms", "0755", "--size", str(_RUN_SIZE), "--tmpfs", "/run"),
        *("--perms", "1777", "--dir", "/run/lock"),
        *_covers(),
        *_mounts(inside),
        *_environment(inside),
    ]


def _namespaces(
    hostname: str, user_namespace: bool, new_network: bool, privileged: bool
) -> list[str]:
    given = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    given += ["--hostname", hostname, "--die-with-parent"]
    if user_namespace:
        given += ["--unshare-user", "--uid", "0", "--gid", "0"]
    if new_network:
        given.append("--unshare-net")
    given += ["--cap-drop", "ALL"]
    if privileged:
        for name in PRIVILEGED:
            given += ["--cap-add", name]
    return given


def _layer(layer: Layer, layers: Layers) -> list[str]:
    if layer.path == "/" and not layers.writable:
        return ["--bind", layer.upper, "/"]  # a copy of the template
    given = [part for source in layer.sources for part in ("--overlay-src", source)]
    if layers.writable:
        return [*given, "--overlay", layer.upper, layer.work, layer.path]
    # ``upper`` still brings what is the run's own: its hosts
    return [*given, "--overlay-src", layer.upper, "--ro-overlay", layer.path]


def _read_only(inside: Inside) -> list[str]:
    given: list[str] = []
    for path in inside.read_only:
        given += ["--ro-bind", path, path]
    for path in inside.covered:
        given += ["--perms", "0700", "--tmpfs", path, "--remount-ro", path]
    for path in inside.shut:
        if os.path.isdir(path):
            given += ["--perms", "0555", "--tmpfs", path, "--remount-ro", path]
        else:
            given += ["--ro-bind", "/dev/null", path]
    return given


def _system() -> list[str]:
    given = ["--ro-bind", "/sys", "/sys", "--tmpfs", "/sys/fs/cgroup"]
    return [*given, *_cover(COVERED_IN_SYS)]


def _covers() -> list[str]:
    given: list[str] = []
    for path in _FROZEN:
        if os.path.exists(path):
            given += ["--ro-bind", path, path]
    for path in _COVERED_FILES:
        if os.path.exists(path):
            given += ["--ro-bind", "/dev/null", path]
    return [*given, *_cover(_COVERED_FOLDERS)]


def _cover(folders: Sequence[str]) -> list[str]:
    given: list[str] = []
    for path in folders:
        if os.path.isdir(path):
            given += ["--perms", "0555", "--tmpfs", path, "--remount-ro", path]
    return given


def _mounts(inside: Inside) -> list[str]:
    given: list[str] = []
    for device, target in inside.devices:
        given += ["--dev-bind", device, target]
    for source, target, read_only in sorted(inside.mounts, key=lambda mount: mount[1]):
        if not target.startswith("/") or "\0" in target or "/../" in f"{target}/":
            raise ValueError(f"a volume cannot be mounted at {target!r}: use an absolute path")
        given += ["--ro-bind-fd" if read_only else "--bind-fd", str(source), target]
    return given


def _environment(inside: Inside) -> list[str]:
    given = ["--clearenv"]
    for name, value in inside.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{name!r} cannot be an environment variable")
        given += ["--setenv", name, value]
    return [*given, "--dir", inside.working_dir, "--chdir", inside.working_dir]
