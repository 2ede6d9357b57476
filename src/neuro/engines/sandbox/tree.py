"""The root of a run, mounted before the run is asked for, where we may mount: as root.

bubblewrap would do the same, but while the run waits, and it reads all of the machine's mounts for
each that it makes.
"""

from __future__ import annotations

import os
import stat

from neuro.engines.sandbox import bwrap, kernel
from neuro.engines.sandbox.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY

_DEVICES = {
    **{"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)},
    "tty": (5, 0),
}
_LINKS = (
    *(("fd", "/proc/self/fd"), ("core", "/proc/kcore"), ("ptmx", "pts/ptmx")),
    *((name, f"/proc/self/fd/{fd}") for fd, name in enumerate(("stdin", "stdout", "stderr"))),
)


def build(layers: bwrap.Layers, root: str) -> bool:
    """Mount the tree at ``root`` in a mount namespace of our own; False where we may not.

    The files of /etc that are the run's own are there, and empty.
    """
    try:
        _build(layers, root)
    except OSError:  # in a container without the right to mount, or to make devices
        clear(root)
        return False
    return True


def clear(root: str) -> None:
    """Take the tree away, if it is there. Raises OSError where that fails."""
    while os.path.ismount(root):
        kernel.unmount(root)


def _build(layers: bwrap.Layers, root: str) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)  # what the host mounts later still arrives
    etc = layers.upper("/etc")
    for name in ("hosts", "hostname"):
        os.close(os.open(f"{etc}/{name}", os.O_WRONLY | os.O_CREAT, 0o644))
    os.mkdir(root)
    for layer in layers.all:
        _overlay(layer, root + layer.path)
    _system(f"{root}/sys")
    _devices(f"{root}/dev")


def _overlay(layer: bwrap.Layer, target: str) -> None:
    lower = ":".join(_escaped(source) for source in reversed(layer.sources))
    options = f"lowerdir={lower},upperdir={_escaped(layer.upper)},workdir={_escaped(layer.work)}"
    kernel.mount("overlay", target, "overlay", MS_NOSUID, options)


def _escaped(path: str) -> str:
    for character in "\\:,":
        path = path.replace(character, f"\\{character}")
    return path


def _system(target: str) -> None:
    """The machine's /sys without what is mounted in it."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    kernel.mount("/sys", target, flags=MS_BIND)
    kernel.mount("none", target, flags=MS_BIND | kernel.MS_REMOUNT | MS_RDONLY | flags)
    for path in bwrap.COVERED_IN_SYS:
        place = target + path.removeprefix("/sys")
        if os.path.isdir(place):
            kernel.mount("tmpfs", place, "tmpfs", MS_RDONLY | flags, "mode=0555")
    if os.path.isdir(f"{target}/fs/cgroup"):
        kernel.mount("tmpfs", f"{target}/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")


def _devices(target: str) -> None:
    kernel.mount("tmpfs", target, "tmpfs", MS_NOSUID, "mode=0755")
    for name, numbers in _DEVICES.items():
        os.mknod(f"{target}/{name}", stat.S_IFCHR, os.makedev(*numbers))
        os.chmod(f"{target}/{name}", 0o666)  # noqa: S103 - as the machine's own
    for name, destination in _LINKS:
        os.symlink(destination, f"{target}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{target}/{name}")
    flags = MS_NOSUID | MS_NOEXEC
    kernel.mount("devpts", f"{target}/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620")
