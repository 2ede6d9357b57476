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
_COVERED_FOLDERS = ("/proc/scsi", "/proc/acpi", "/sys/firmware", "/sys/kernel/debug")


@dataclass(frozen=True)
class Layers:
    """The run's private folders on disk."""

    root: str
    overlays: Sequence[tuple[str, str | None, str, str]]  # path, whiteouts, upper, work


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
    shm: int


def arguments(
    layers: Layers,
    inside: Inside,
    *,
    user_namespace: bool,
    new_network: bool,
    privileged: bool,
    writable: bool = True,
) -> list[str]:
    """Everything but descriptors and the command. Raises ValueError for what cannot be mounted."""
    return [
        *_namespaces(inside.hostname, user_namespace, new_network, privileged),
        *("--bind", layers.root, "/"),
        *_userland(layers, inside, writable=writable),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(inside.shm), "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--ro-bind", "/sys", "/sys", "--tmpfs", "/sys/fs/cgroup"),
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


def _userland(layers: Layers, inside: Inside, *, writable: bool) -> list[str]:
    given: list[str] = []
    for path, hidden, upper, work in layers.overlays:
        sources = [path, hidden] if hidden else [path]
        for source in sources:  # the lowest first
            given += ["--overlay-src", source]
        if writable:
            given += ["--overlay", upper, work, path]
        else:  # ``upper`` still brings what is ours: resolv.conf and hosts
            given += ["--overlay-src", upper, "--ro-overlay", path]
    for path in inside.read_only:
        given += ["--ro-bind", path, path]
    for path in inside.covered:
        given += ["--perms", "0700", "--tmpfs", path, "--remount-ro", path]
    return given


def _covers() -> list[str]:
    given: list[str] = []
    for path in _FROZEN:
        if os.path.exists(path):
            given += ["--ro-bind", path, path]
    for path in _COVERED_FILES:
        if os.path.exists(path):
            given += ["--ro-bind", "/dev/null", path]
    for path in _COVERED_FOLDERS:
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
