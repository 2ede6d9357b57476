"""Writing a layer by hand, as overlayfs would: what COPY, ADD and WORKDIR make.

A path is one in the tree that the layer lies on, with all links resolved (``View.real``). Folders
that are below only are made in the layer as they are there. Owners that this process cannot give
are told beside the layer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import msgspec
from msgspec.structs import replace

from neuro.builder.faults import BuildFault
from neuro.builder.views import Found, LayerFolder, View
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import OPAQUE
from neuro.engines.images.records import Recorder
from neuro.engines.sandbox.removal import remove_beside

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PORTION = 1 << 26
_HIGHEST_ID = 65_535
NEW_FOLDER = 0o755


class Dress(msgspec.Struct, frozen=True):
    """What a file has besides its content. ``time`` is in nanoseconds; None leaves it as it is."""

    mode: int
    owner: tuple[int, int] = (0, 0)
    time: int | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Placer:
    """One layer in the empty folder ``layer.files`` that lies on ``below``. To be closed."""

    def __init__(self, below: Sequence[LayerFolder], layer: LayerFolder) -> None:
        self._below = View(below)
        self.view = View((*below, layer))
        self._root = os.open(layer.files, _FOLDER)
        self._told: IO[str] = open(layer.beside, "a", encoding="ascii")  # noqa: SIM115
        self._recorder = Recorder(self._told, Limits())
        self._many = gives_owners()
        self._here = {""}  # folders that the layer has
        self._hidden: set[str] = set()  # what was removed, and is about to be made anew
        self._times: dict[str, int] = {}
        if (top := self._below.find("")) is not None:
            self._dress_folder("", self._dress_of(top))

    def __enter__(self) -> Placer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Set the times of folders, which change while files are put into them. Raises OSError."""
        try:
            for path, moment in self._times.items():
                os.utime(path, ns=(moment, moment), dir_fd=self._root, follow_symlinks=False)
        finally:
            self._told.close()
            os.close(self._root)
            self.view.close()
            self._below.close()

    # Folders

    def make_folders(
        self, path: str, owner: tuple[int, int] = (0, 0), mode: int = NEW_FOLDER
    ) -> None:
        """Make a folder and those above it, as far as they are not there.

        Raises BuildFault where a file is in the way.
        """
        missing = []
        for above in _upwards(path):
            found = self.view.find(above)
            if found is not None:
                if not found.is_folder:
                    raise BuildFault(f"'/{above}' is not a folder.")
                break
            missing.append(above)
        for above in reversed(missing):
            self.put_folder(above, Dress(mode, owner))

    def put_folder(self, path: str, dress: Dress) -> None:
        """A folder, new or as it is but for its dress. Its parent is there.

        Raises BuildFault where something else is in the way.
        """
        found = self.view.find(path)
        if found is not None and not found.is_folder:
            raise BuildFault(f"A folder cannot take the place of '/{path}', which is a file.")
        if path not in self._here:
            self._reach(path.rpartition("/")[0])
            hides = found is None and self._hides(path)
            self._uncover(path)
            os.mkdir(path, 0o700, dir_fd=self._root)
            self._here.add(path)
            self.view.changed(path)
            if hides:
                self._make_opaque(path)
        self._dress_folder(path, dress)

    def _hides(self, path: str) -> bool:
        """Whether there is a folder below that this layer had something else in place of."""
        below = self._below.find(path)
        return below is not None and below.is_folder

    def _make_opaque(self, path: str) -> None:
        fd = os.open(path, _FOLDER, dir_fd=self._root)
        try:
            os.setxattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)
        self._recorder.opaque(os.fsencode(path))

    def _reach(self, folder: str) -> None:
        """Make folders of the tree in the layer, as they are below."""
        missing = []
        for above in _upwards(folder):
            if above in self._here:
                break
            missing.append(above)
        for above in reversed(missing):
            found = self._below.find(above)
            assert found is not None, above
            os.mkdir(above, 0o700, dir_fd=self._root)
            self._here.add(above)
            self._dress_folder(above, replace(self._dress_of(found), time=None))
            self.view.changed(above)

    def _dress_of(self, found: Found) -> Dress:
        xattrs = tuple(self._below.xattrs(found).items())
        return Dress(found.mode, self._below.owner(found), found.status.st_mtime_ns, xattrs)

    def _dress_folder(self, path: str, dress: Dress) -> None:
        fd = os.open(path or ".", _FOLDER, dir_fd=self._root)
        try:
            self._dress(fd, path, dress)
        finally:
            os.close(fd)
        if dress.time is not None:
            self._times[path or "."] = dress.time

    # What is no folder

    def put_file(self, path: str, dress: Dress, content: int | bytes) -> None:
        """A file with this content, or with that of a descriptor. Raises BuildFault, OSError."""
        self._clear(path)
        fd = os.open(path, _NEW, 0o600, dir_fd=self._root)
        try:
            if isinstance(content, int):
                copy_content(content, fd)
            else:
                write_all(fd, (content,))
            self._finish(fd, path, dress)
        finally:
            os.close(fd)

    def put_pieces(
        self, path: str, dress: Dress, size: int, pieces: Iterable[tuple[int, memoryview]]
    ) -> None:
        """A file of pieces, each with its place, as archives have them."""
        self._clear(path)
        fd = os.open(path, _NEW, 0o600, dir_fd=self._root)
        try:
            for offset, piece in pieces:
                os.lseek(fd, offset, os.SEEK_SET)
                write_all(fd, (piece,))
            os.ftruncate(fd, size)
            self._finish(fd, path, dress)
        finally:
            os.close(fd)

    def _finish(self, fd: int, path: str, dress: Dress) -> None:
        self._dress(fd, path, dress)
        if dress.time is not None:
            os.utime(fd, ns=(dress.time, dress.time))

    def put_link(self, path: str, target: str, dress: Dress) -> None:
        """A symbolic link."""
        self._clear(path)
        os.symlink(target, path, dir_fd=self._root)
        self._dress_name(path, dress)

    def put_hard_link(self, path: str, original: str, dress: Dress | None = None) -> None:
        """Another name of a file that this layer has, which changes its dress. Raises OSError."""
        self._clear(path)
        os.link(
            original,
            path,
            src_dir_fd=self._root,
            dst_dir_fd=self._root,
            follow_symlinks=False,
        )
        linked = self.view.find(path)
        if dress is not None and linked is not None and linked.is_file:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
            try:
                self._finish(fd, path, dress)
            finally:
                os.close(fd)

    def put_pipe(self, path: str, dress: Dress) -> None:
        """A named pipe."""
        self._clear(path)
        os.mkfifo(path, 0o600, dir_fd=self._root)
        self._dress_name(path, dress)
        os.chmod(path, dress.mode, dir_fd=self._root)

    def put_device(self, path: str, kind: str, major: int, minor: int, dress: Dress) -> None:
        """An empty file that stands for a device: nobody makes one here."""
        self.put_file(path, dress, b"")
        self._recorder.device(os.fsencode(path), kind, major, minor)

    def has(self, path: str) -> bool:
        """Whether the layer itself has something at a path."""
        try:
            os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _clear(self, path: str) -> None:
        """Make room for what is no folder. Raises BuildFault where a folder is in the way."""
        found = self.view.find(path)
        if found is not None and found.is_folder:
            raise BuildFault(f"A file cannot take the place of '/{path}', which is a folder.")
        self._reach(path.rpartition("/")[0])
        self._uncover(path)
        if found is not None and found.layer == 0:
            os.unlink(path, dir_fd=self._root)
            self._recorder.gone(os.fsencode(path))

    def remove_folder(self, path: str) -> None:
        """Take away a folder, in whose place something else will be. Raises OSError."""
        if self.has(path):
            name = path.rpartition("/")[2]
            above = os.open(path.rpartition("/")[0] or ".", _FOLDER, dir_fd=self._root)
            try:
                remove_beside(above, name)
            finally:
                os.close(above)
            self._recorder.gone(os.fsencode(path))
            self._here = {one for one in self._here if one != path and not _is_in(one, path)}
            self._times = {one: at for one, at in self._times.items() if one != path}
            self._times = {one: at for one, at in self._times.items() if not _is_in(one, path)}
        self._reach(path.rpartition("/")[0])
        # Until something is put there, the folder below must not show.
        os.mknod(path, stat.S_IFCHR, 0, dir_fd=self._root)
        self._hidden.add(path)
        self.view.forget()

    def remove_file(self, path: str) -> None:
        """Take away what is no folder, in whose place something else will be. Raises OSError."""
        if self.has(path):
            os.unlink(path, dir_fd=self._root)
            self._recorder.gone(os.fsencode(path))
        self._reach(path.rpartition("/")[0])
        os.mknod(path, stat.S_IFCHR, 0, dir_fd=self._root)
        self._hidden.add(path)
        self.view.changed(path)

    def _uncover(self, path: str) -> None:
        if path in self._hidden:
            os.unlink(path, dir_fd=self._root)
            self._hidden.discard(path)

    # Dress

    def _dress(self, fd: int, path: str, dress: Dress) -> None:
        self._own(fd, path, dress.owner)
        os.fchmod(fd, dress.mode)
        left = {}
        for name, value in dress.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError:
                left[name] = value
        if left:
            self._recorder.xattrs(os.fsencode(path), left)

    def _dress_name(self, path: str, dress: Dress) -> None:
        """Owner and time of what is not opened."""
        if self._can_give(dress.owner):
            if self._many:
                os.chown(path, *dress.owner, dir_fd=self._root, follow_symlinks=False)
        else:
            self._recorder.owner(os.fsencode(path), *dress.owner)
        if dress.time is not None:
            times = (dress.time, dress.time)
            os.utime(path, ns=times, dir_fd=self._root, follow_symlinks=False)

    def _own(self, fd: int, path: str, owner: tuple[int, int]) -> None:
        if self._can_give(owner):
            if self._many:  # else all that is made is its one user's
                os.fchown(fd, *owner)
        else:
            self._recorder.owner(os.fsencode(path), *owner)

    def _can_give(self, owner: tuple[int, int]) -> bool:
        if owner == (0, 0):
            return True
        return self._many and max(owner) <= _HIGHEST_ID


def gives_owners() -> bool:
    """Whether this process can give files to others than one user."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        several = any(int(line.split()[2]) > 1 for line in file)
    return several and os.geteuid() == 0


def copy_content(source: int, target: int) -> None:
    """All of an open file into another. Raises OSError."""
    try:
        while os.copy_file_range(source, target, _PORTION):
            pass
        # Of some file systems it says that there is nothing: what is left is read.
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while piece := os.read(source, 1 << 20):
        write_all(target, (piece,))


def write_all(fd: int, pieces: Iterable[bytes | memoryview]) -> None:
    """Write all of it. Raises OSError."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(fd, left) :]


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")
