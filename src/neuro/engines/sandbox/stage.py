"""What a run's root is made of, put together before the run is asked for, with the host's rights.

The zygote puts together what is the same for all runs of a block of users, in a mount namespace.
The process that will be a run's command takes a copy of that for its own. It then gives up its
rights over the host, sees the same mounts in a copy that has none, makes the root of them
(``inside``) and lets go of all else.

::

    private/   the run's own folders: the upper ones of its overlays
    land/      our layers over the machine's userland, and the template of the root
    base/<n>   folders of the machine that jobs read (a root server: as their user 0)
    shown/<n>  folders of the machine as they are
    proc/, sys/, dev/
    root/      where the root is put together
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial

from neuro.engines.sandbox import identities, inside, kernel
from neuro.engines.sandbox.identities import Block, Blocks
from neuro.engines.sandbox.kernel import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
)
from neuro.engines.sandbox.launch import Plan

_FOLDERS = ("private", "land", "base", "lower", "shown", "none", "proc", "sys", "dev", "root")
_SIZE = "size=1m,nr_inodes=1k"
# What only the kernel's own users need, in containers' usual lists of hidden places.
_COVERED_IN_SYS = (
    "firmware",
    "kernel/debug",
    "kernel/tracing",
    "kernel/security",
    "fs/bpf",
    "fs/pstore",
    "devices/virtual/powercap",
)


def blocks(plan: Plan) -> Blocks:
    """The users of the runs of a plan, each block with its stage."""
    prepared = partial(prepare, plan)
    return Blocks(plan.folder, prepared, plain=plan.plain, shared=plan.shared_ids)


def prepare(plan: Plan, users: int | None, mapped: int | None) -> int:
    """A mount namespace with all of the stage that is the same for all runs with these ``users``.

    ``users`` is a user namespace, ``mapped`` the same where files of ours have to be mapped to its
    user 0. This process is where it was afterwards. Raises OSError.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.CLONE_NEWNS)  # what the host mounts later still arrives
        _prepare(plan, users, mapped)
        return os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        kernel.setns(home, kernel.CLONE_NEWNS)
        os.close(home)


def _prepare(plan: Plan, users: int | None, mapped: int | None) -> None:
    land, place = plan.userland, f"{plan.folder}/stage"
    kernel.mount("tmpfs", place, "tmpfs", MS_NOSUID, f"mode=0755,{_SIZE}")
    os.chdir(place)
    for name in _FOLDERS:
        os.mkdir(name)
        os.chmod(name, 0o755)  # noqa: S103 - whatever the umask is
    for number, path in enumerate(land.read_only):
        os.mkdir(f"shown/{number}")
        shown = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV
        _attach(kernel.copy_tree(path), f"shown/{number}", shown)
    land_tree = kernel.copy_tree(f"{plan.folder}/land")
    _attach(land_tree, "land", ATTR_NOSUID | ATTR_NODEV, mapped)
    if land.mapped and users is not None:
        _show(land.bases, users)
    else:
        _copy(land.overlays)
    _system()


def build(plan: Plan, private: str, block: Block) -> None:
    """Mount the stage in a mount namespace of our own, and move there. Raises OSError.

    ``private`` is the folder with the run's own layers.
    """
    kernel.setns(block.stage, kernel.CLONE_NEWNS)
    kernel.unshare(kernel.CLONE_NEWNS)
    os.chdir(f"{plan.folder}/stage")
    _attach(kernel.copy_tree(private), "private", ATTR_NOSUID | ATTR_NODEV)
    _devices(block, plain=plan.plain)


def _copy(folders: Sequence[str]) -> None:
    """Folders of the machine as they are.

    Copies, because the interpreter is a mount of its own among them (``kernel.enter_guard``), and
    what has such a mount below it cannot be a layer in another user namespace.
    """
    for number, path in enumerate(folders):
        os.mkdir(f"base/{number}")
        tree = kernel.copy_tree(path, recursive=False)
        _attach(tree, f"base/{number}", ATTR_NOSUID | ATTR_NODEV)


def _show(folders: Sequence[str], users: int) -> None:
    """Let folders of the machine belong to user 0 of the user namespace ``users``.

    What of them not everybody may read stays unreadable, whatever becomes of its mode and whenever
    it is made: the kernel asks for each file whether ``identities.READER`` may read it, because
    that is who mounts them. Raises OSError where the kernel or a file system cannot do this.
    """
    for number, path in enumerate(folders):
        os.mkdir(f"lower/{number}")
        os.mkdir(f"base/{number}")
        tree = kernel.copy_tree(path, recursive=False)
        _attach(tree, f"lower/{number}", ATTR_NOSUID | ATTR_NODEV, users)
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    kernel.read_files_as(identities.READER)
    try:
        for number in range(len(folders)):
            # Without a writable layer an overlay needs two others.
            options = f"lowerdir=lower/{number}:none"
            kernel.mount("overlay", f"base/{number}", "overlay", flags, options)
    finally:
        kernel.read_files_as(0)


def _attach(tree: int, place: str, attributes: int, users: int | None = None) -> None:
    try:
        kernel.set_attributes(tree, attributes, users)
        kernel.attach_at(tree, place)
    finally:
        os.close(tree)


def _system() -> None:
    """The machine's /sys without what is mounted in it."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        tree = kernel.copy_tree("/sys", recursive=False)
    except OSError:  # in a user namespace what is mounted in it cannot be left out
        tree = kernel.copy_tree("/sys")
    _attach(tree, "sys", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)
    for name in _COVERED_IN_SYS:
        if os.path.isdir(f"sys/{name}"):
            kernel.mount("tmpfs", f"sys/{name}", "tmpfs", MS_RDONLY | flags, "mode=0555,size=4k")
    if os.path.isdir("sys/fs/cgroup"):
        kernel.mount("tmpfs", "sys/fs/cgroup", "tmpfs", MS_RDONLY | flags, "mode=0755,size=4k")


def _devices(block: Block, *, plain: bool) -> None:
    kernel.mount("tmpfs", "dev", "tmpfs", MS_NOSUID, f"mode=0755,{_SIZE}")
    for name, numbers in inside.DEVICES.items():
        path = f"dev/{name}"
        if plain:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            kernel.mount(f"/dev/{name}", path, flags=MS_BIND)
        else:
            os.mknod(path, stat.S_IFCHR, os.makedev(*numbers))
            os.chmod(path, 0o666)  # noqa: S103 - as the machine's own
    for name, destination in inside.LINKS:
        os.symlink(destination, f"dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}")
    for name in (".", "shm", "pts"):  # the run may make files there, and change nobody else's
        block.give(f"dev/{name}")
