"""Folders of a layer while it is unpacked: found by name, never outside of it.

A name in an archive may lead through links that the archive made before. They are followed as the
container will, with the layer's folder as the root, so they lead to places in the layer only.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable

from neuro.engines.images.faults import ImageFault, refused, shown
from neuro.engines.sandbox import kernel

_OPENAT2 = 437  # on every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_HOW = struct.pack(
    "=QQQ",
    os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
    0,
    _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS,
)
_KEPT_OPEN = 128
_MOST_LINKS = 40  # as the kernel
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPAQUE = "user.overlay.opaque"  # what marks a folder of a layer that hides the lower ones'
HIDDEN = b".wh."  # what marks in a layer's archive that a lower layer's file is hidden


def open_folder(root: int, path: bytes) -> int:
    """Open a folder below ``root`` by a path without links. Raises OSError."""
    return kernel.call("openat2", _OPENAT2, root, path or b".", _HOW, len(_HOW))


def parts_of(name: bytes) -> list[bytes]:
    """The folders and the file that a name in an archive means, from the layer's root on.

    Raises ImageFault for one that leads upwards.
    """
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise refused(f"The layer has a file whose name leads out of its folder: {shown(name)}.")
    return parts


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this hides a file of a lower layer, in overlayfs' way."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


class Places:
    """The folders below ``root``, a few of them open.

    Both functions are given a folder, a name in it, and its path. ``imply`` makes a folder because
    something lies in it, ``uncover`` puts one in a whiteout's place.
    """

    def __init__(
        self,
        root: int,
        imply: Callable[[int, bytes, bytes], None],
        uncover: Callable[[int, bytes, bytes], None],
    ) -> None:
        self._root = root
        self._imply = imply
        self._uncover = uncover
        self._open: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()

    def folder(self, path: bytes) -> tuple[int, bytes]:
        """A folder and the path that it has without links; made where it is not there.

        The descriptor is good until the next call. Raises ImageFault, OSError.
        """
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        try:
            found = open_folder(self._root, path), path
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise
            real = self._walk(path)
            found = open_folder(self._root, real), real
        if len(self._open) >= _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[path] = found
        return found

    def forget(self) -> None:
        """A folder or a link was removed: what was found by its name may be elsewhere now."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def _walk(self, path: bytes) -> bytes:
        """The path without links of a folder, made with all above it where there is none."""
        waiting = path.split(b"/")[::-1]
        real: list[bytes] = []
        links = 0
        fd = open_folder(self._root, b"")
        try:
            while waiting:
                name = waiting.pop()
                if name in (b"", b"."):
                    continue
                if name == b"..":
                    real = real[:-1]
                    below = open_folder(self._root, b"/".join(real))
                else:
                    step = self._step(fd, real, name)
                    if isinstance(step, int):
                        real.append(name)
                        below = step
                    else:
                        links += 1
                        if links > _MOST_LINKS:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                        waiting += step.split(b"/")[::-1]
                        if not step.startswith(b"/"):
                            continue
                        real = []
                        below = open_folder(self._root, b"")
                os.close(fd)
                fd = below
        finally:
            os.close(fd)
        return b"/".join(real)

    def _step(self, folder: int, above: list[bytes], name: bytes) -> int | bytes:
        """The open folder ``name``, or where a link of that name leads to."""
        path = b"/".join((*above, name))
        try:
            return os.open(name, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            self._imply(folder, name, path)
            return os.open(name, _FOLDER, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=folder)
        if not is_whiteout(status):
            raise _not_a_folder(path)
        self._uncover(folder, name, path)
        return os.open(name, _FOLDER, dir_fd=folder)


def _not_a_folder(path: bytes) -> ImageFault:
    return refused(f"The layer has files in {shown(path)}, which it says is a file itself.")
