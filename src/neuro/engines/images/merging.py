"""Several layers made one folder, for a kernel that mounts fewer than an image has.

Files are hard links to those of the layers, so it costs folders only. What a layer hides is not
in the folder any more. It runs where the store is the root and nothing else is to be seen
(``merger``).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection

from neuro.engines.images.places import OPAQUE, is_whiteout, open_folder
from neuro.engines.sandbox.removal import remove_beside

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_PORTION = 1 << 24


class Merging:
    """Layers go into the open, empty folder ``target`` one after the other, the lowest first."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._times: dict[bytes, int] = {}

    def add(self, layer: int, implied: Collection[bytes]) -> None:
        """Put the open folder of a layer above what is here. Raises OSError.

        ``implied`` are its folders that its archive has no entry for: mode and owner of those are
        the ones below.
        """
        self._dress(layer, self._target, b"")
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            source, target = open_folder(layer, path), open_folder(self._target, path)
            try:
                for name in _names(source):
                    if self._put(source, target, name, path, implied):
                        waiting.append(path + b"/" + name if path else name)
            finally:
                os.close(source)
                os.close(target)

    def end(self) -> None:
        """Set the times of folders, which change until all is in them."""
        for path, time in self._times.items():
            try:
                fd = open_folder(self._target, path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a higher layer has something else there
                raise
            try:
                os.utime(b".", ns=(time, time), dir_fd=fd)
            finally:
                os.close(fd)

    def _put(
        self, source: int, target: int, name: bytes, above: bytes, implied: Collection[bytes]
    ) -> bool:
        """Put one thing into a folder; whether it is a folder, whose content comes next."""
        theirs = os.stat(name, dir_fd=source, follow_symlinks=False)
        ours = _status(target, name)
        if not stat.S_ISDIR(theirs.st_mode):
            if ours is not None:
                _remove(target, name, ours)
            if not is_whiteout(theirs):
                _link(source, target, name, theirs)
            return False
        path = above + b"/" + name if above else name
        below = _open(source, name)
        try:
            is_new = ours is None or not stat.S_ISDIR(ours.st_mode)
            if is_new:
                if ours is not None:
                    _remove(target, name, ours)
                os.mkdir(name, 0o700, dir_fd=target)
            elif _is_opaque(below):
                _clear(target, name)
            if is_new or path not in implied:
                mine = _open(target, name)
                try:
                    self._dress(below, mine, path)
                finally:
                    os.close(mine)
        finally:
            os.close(below)
        return True

    def _dress(self, source: int, target: int, path: bytes) -> None:
        """Give a folder what the layer's has: owner, mode, attributes, and later its time."""
        source, target = _open(source, b"."), _open(target, b".")
        try:
            status = os.fstat(source)
            os.chown(target, status.st_uid, status.st_gid)
            os.chmod(target, stat.S_IMODE(status.st_mode))
            _copy_xattrs(source, target)
            self._times[path] = status.st_mtime_ns
        finally:
            os.close(source)
            os.close(target)


def _names(folder: int) -> list[bytes]:
    fd = _open(folder, b".")
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def _open(folder: int, name: bytes) -> int:
    return os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=folder)


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _remove(folder: int, name: bytes, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        remove_beside(folder, os.fsdecode(name))
    else:
        os.unlink(name, dir_fd=folder)


def _clear(folder: int, name: bytes) -> None:
    fd = _open(folder, name)
    try:
        for below in _names(fd):
            remove_beside(fd, os.fsdecode(below))
    finally:
        os.close(fd)


def _is_opaque(folder: int) -> bool:
    return OPAQUE in os.listxattr(folder)


def _copy_xattrs(source: int, target: int) -> None:
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY):
            os.setxattr(target, name, os.getxattr(source, name))


def _link(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK or not stat.S_ISREG(status.st_mode):
            raise
        _copy(source, target, name, status)


def _copy(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    """For a file that has as many names as the file system allows."""
    theirs = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mine = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(mine, theirs, None, _PORTION):
                pass
            os.chown(mine, status.st_uid, status.st_gid)
            os.chmod(mine, stat.S_IMODE(status.st_mode))
            _copy_xattrs(theirs, mine)
            os.utime(mine, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(mine)
    finally:
        os.close(theirs)
