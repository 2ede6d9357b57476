"""The root of a run that has an image, in place of the berth's: its layers, a private one above.

The second process makes it (``becoming``), in namespaces of the run's own and without rights over
the host, once the run is known. The berth's root, which is made before, is where it begins. An
image can hold anything: nothing here follows a link out of it, and nothing needs a file of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.kernel import MS_NODEV, MS_NOSUID

_PLACE = "/mnt"  # of the berth's root: nothing has run in it yet
_SIZE = "mode=0755,size=1m,nr_inodes=4k"
_SYSTEM = ("proc", "sys", "dev")
_GIVEN = ("hosts", "hostname", "resolv.conf")  # of the berth's /etc, which has those of the run


def enter(layers: Sequence[int], private: int | None, upper: str, memory: int) -> None:
    """Make the root of the trees ``layers``, the lowest first, and move into it. Raises OSError.

    ``upper`` is the name of the run's own layer in the tree ``private``; without that tree it is
    kept in ``memory`` bytes, as the file system of the engine's folder can hold no such layer.
    """
    given = [(name, kernel.copy_tree(f"/etc/{name}")) for name in _GIVEN]
    kernel.mount("tmpfs", _PLACE, "tmpfs", MS_NOSUID | MS_NODEV, _SIZE)
    os.chdir(_PLACE)
    _overlay(layers, private, upper, memory)
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _SYSTEM:
            _attach(kernel.copy_tree(f"/{name}"), folder(root, name))
        for name, tree in given:
            give(root, name, tree)
    finally:
        os.close(root)
    os.chdir("root")
    kernel.enter_root()


def _overlay(layers: Sequence[int], private: int | None, upper: str, memory: int) -> None:
    flags = MS_NOSUID | MS_NODEV
    # By names as short as can be, all of them fit in the page of options that a mount has.
    names = [str(number) for number in range(len(layers))]
    for name, tree in zip(names, layers, strict=True):
        os.mkdir(name)
        _attach(os.dup(tree), _open(name))
    for name in ("none", "private", "root"):
        os.mkdir(name)
    if private is not None:
        _attach(os.dup(private), _open("private"))
    else:
        kernel.mount("tmpfs", "private", "tmpfs", flags, f"mode=0755,size={memory}")
        for name in (upper, f"{upper}.work"):
            os.mkdir(f"private/{name}")
    # See ``inside`` for "volatile".
    options = f"lowerdir={_chain(names)},upperdir=private/{upper},workdir=private/{upper}.work"
    kernel.mount("overlay", "root", "overlay", flags, f"{options},userxattr,volatile")


def _chain(names: Sequence[str]) -> str:
    """The lower folders of an overlay, as its options have them: the highest first."""
    return ":".join(reversed(names)) or "none"


def _open(name: str) -> int:
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _attach(tree: int, place: int) -> None:
    """Attach a tree at a place, and close both."""
    try:
        kernel.attach(tree, place)
    finally:
        os.close(tree)
        os.close(place)


def folder(root: int, name: str) -> int:
    """Open a folder right below the root; whatever else the image has there gives way to it."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=root)
            os.mkdir(name, 0o755, dir_fd=root)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=root)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=root)


def give(root: int, name: str, tree: int) -> None:
    """Put one of the run's own files into /etc, unless the image has a folder of that name."""
    try:
        etc = folder(root, "etc")
        try:
            place = _file(etc, name)
        finally:
            os.close(etc)
        if place is not None:
            kernel.attach(tree, place)
            os.close(place)
    finally:
        os.close(tree)


def make_place(root: int, name: str) -> None:
    """Make the place of one of the run's own files in /etc, as ``give`` does. Raises OSError."""
    etc = folder(root, "etc")
    try:
        place = _file(etc, name)
    finally:
        os.close(etc)
    if place is not None:
        os.close(place)


def _file(etc: int, name: str) -> int | None:
    try:
        kind = stat.S_IFMT(os.stat(name, dir_fd=etc, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        kind = 0
    if kind == stat.S_IFDIR:
        return None
    if kind not in (0, stat.S_IFREG):  # such as a link to a file that a service of Ubuntu's makes
        os.unlink(name, dir_fd=etc)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    if kind != stat.S_IFREG:
        flags |= os.O_CREAT | os.O_EXCL
    else:
        flags |= os.O_PATH
    return os.open(name, flags, 0o644, dir_fd=etc)
