"""Making a layer, as registries have it, of a folder that an overlay keeps its changes in.

The inverse of ``extracting``. The folder is a stranger's and may change meanwhile: no link is
followed, each thing is opened by its name in a folder that is open. What the layer is named by
is known when all of it is written; nothing is kept in memory but the names of one folder, and of
files that have several names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from neuro.engines.images import compression, tar, tar_writing
from neuro.engines.images.faults import refused, shown
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import HIDDEN, OPAQUE, is_whiteout, open_folder
from neuro.engines.images.records import Beside

LEVEL = 1  # of isal, which has 0 to 3
_PIECE = 1 << 20
_LONGEST_NAME = 4095
_OPAQUE_MARK = HIDDEN + HIDDEN + b".opq"
_WHITEOUT = "user.overlay.whiteout"
_XATTR_WHITEOUTS = b"x"  # of OPAQUE: files in the folder may be such whiteouts
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_KEPT = ("user.", "security.capability")
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What is a file now may be a pipe a moment later, at which nobody is to wait.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEVICES = {"character": tar.CHARACTER, "block": tar.BLOCK_DEVICE}
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_NOTHING: Mapping[bytes, Beside] = {}
_SAYS_NOTHING = Beside()


@dataclass(frozen=True)
class Part:
    """An open folder, and where in the image its files are: ``b""`` is the root, else ``b"usr"``.

    Of a part that is not the root, the folder itself has no entry.
    """

    folder: int
    place: bytes = b""


@dataclass(frozen=True)
class Packed:
    """A layer: its blob's digest and size, its archive's (diff id), and how many entries it has.

    ``changed`` is how many files changed while they were read, so that the layer has something of
    before and something of after.
    """

    digest: str
    size: int
    diff_id: str
    unpacked: int
    entries: int
    changed: int


def pack(
    parts: Sequence[Part],
    write: Callable[[bytes], object],
    *,
    without: Collection[bytes] = (),
    beside: Mapping[bytes, Beside] = _NOTHING,
    owner: Callable[[int, int], tuple[int, int]] | None = None,
    level: int = LEVEL,
    limits: Limits | None = None,
) -> Packed:
    """Give ``write`` the gzip of a layer of ``parts``, piece by piece.

    The same files make the same bytes. ``without`` are paths that are not part of it, with all
    below them; ``beside`` is what records say of the files, by path; ``owner`` makes the image's
    user and group of those on the disk. Raises ImageFault for what no layer can have and beyond
    ``limits``, OSError, and what ``write`` raises.
    """
    packer = _Packer(parts, without, beside, owner, limits or Limits())
    compress = compression.compressor(level)
    seen, size = hashlib.sha256(), 0
    ahead = compression.Ahead(_gathered(packer.run()))
    try:
        for piece in ahead:
            packer.unpacked += len(piece)
            if packed := compress.compress(piece):
                seen.update(packed)
                size += len(packed)
                write(packed)
    finally:
        ahead.close()
    packed = compress.flush()
    seen.update(packed)
    write(packed)
    return Packed(
        f"sha256:{seen.hexdigest()}",
        size + len(packed),
        f"sha256:{ahead.digest}",
        packer.unpacked,
        packer.entries,
        packer.changed,
    )


class _Packer:
    """The pieces of one archive."""

    def __init__(
        self,
        parts: Sequence[Part],
        without: Collection[bytes],
        beside: Mapping[bytes, Beside],
        owner: Callable[[int, int], tuple[int, int]] | None,
        limits: Limits,
    ) -> None:
        self.entries = self.changed = self.unpacked = 0
        self._size = 0
        self._parts = parts
        self._without = {*without, *(part.place for part in parts if part.place)}
        self._beside = beside
        self._owner = owner
        self._limits = limits
        self._originals: dict[tuple[int, int], bytes] = {}  # of files with several names

    def run(self) -> Iterator[bytes]:
        for part in sorted(self._parts, key=lambda part: part.place):
            waiting = [b""]
            while waiting:
                inside = waiting.pop()
                try:
                    folder = _opened(part.folder, inside)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise
                    continue
                try:
                    yield from self._folder(folder, part, inside, waiting)
                finally:
                    os.close(folder)
        yield tar_writing.END

    def _folder(
        self, folder: int, part: Part, inside: bytes, waiting: list[bytes]
    ) -> Iterator[bytes]:
        """A folder's entry, and those of all in it that are none; those come into ``waiting``."""
        path = _joined(part.place, inside)
        told = self._beside.get(path, _SAYS_NOTHING)
        mark = _xattr(folder, OPAQUE)
        if inside and not told.implied:
            xattrs = _xattrs(folder)
            yield self._entry(path, tar.FOLDER, os.fstat(folder), told, xattrs=xattrs)
        if told.opaque or mark == b"y":
            yield self._mark(_joined(path, _OPAQUE_MARK))
        below = []
        for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
            at = _joined(path, name)
            if at in self._without:
                continue
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_whiteout(status):
                yield self._mark(_joined(path, HIDDEN + name))
                continue
            if name.startswith(HIDDEN):
                raise refused(
                    f"{shown(b'/' + at)} cannot be in an image: there, names that begin with '.wh.'"
                    " stand for files that were removed. Give it another name."
                )
            if stat.S_ISDIR(status.st_mode):
                below.append(_joined(inside, name))
            else:
                yield from self._thing(folder, name, at, status, mark == _XATTR_WHITEOUTS)
        waiting += reversed(below)

    def _thing(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result, may_hide: bool
    ) -> Iterator[bytes]:
        """What is not a folder."""
        identity = status.st_dev, status.st_ino
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            original = self._originals.get(identity)
            if original is not None:
                told = self._beside.get(original, _SAYS_NOTHING)
                yield self._entry(path, tar.HARD_LINK, status, told, link=original)
                return
        told = self._beside.get(path, _SAYS_NOTHING)
        if told.device is not None:
            kind, *numbers = told.device
            device = numbers[0], numbers[1]
            yield self._entry(path, _DEVICES[kind], status, told, device=device)
        elif stat.S_ISREG(status.st_mode):
            try:
                fd = os.open(name, _READ, dir_fd=folder)
            except OSError as error:
                if error.errno in _GONE:
                    return
                raise
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    return
                if may_hide and status.st_size == 0 and _xattr(fd, _WHITEOUT) is not None:
                    yield self._mark(_joined(path.rpartition(b"/")[0], HIDDEN + name))
                    return
                self._limit(status.st_size)
                yield self._entry(path, tar.FILE, status, told, xattrs=_xattrs(fd))
                yield from self._content(fd, status)
            finally:
                os.close(fd)
        elif stat.S_ISLNK(status.st_mode):
            try:
                link = os.readlink(name, dir_fd=folder)
            except OSError:
                return  # it was replaced
            yield self._entry(path, tar.LINK, status, told, link=link)
        elif stat.S_ISFIFO(status.st_mode):
            yield self._entry(path, tar.FIFO, status, told)
        else:
            return  # a socket belongs to who listens there; devices other than these nobody makes
        if status.st_nlink > 1:
            self._originals[identity] = path

    def _content(self, fd: int, status: os.stat_result) -> Iterator[bytes]:
        """As many bytes as the entry says, whatever happens to the file meanwhile."""
        left = status.st_size
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:
                break
            left -= len(piece)
            yield piece
        now = os.fstat(fd)
        if left or (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            self.changed += 1
        while left:
            piece = bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece
        yield tar_writing.padding(status.st_size)

    def _entry(
        self,
        path: bytes,
        kind: bytes,
        status: os.stat_result,
        told: Beside,
        *,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[str, bytes] | None = None,
    ) -> bytes:
        self._count()
        if len(path) > _LONGEST_NAME:
            raise refused(f"{shown(b'/' + path)} has a longer name than files in images can have.")
        owner = told.owner
        if owner is None:
            owner = status.st_uid, status.st_gid
            if self._owner is not None:
                owner = self._owner(*owner)
        return tar_writing.header(
            tar.Entry(
                path,
                kind,
                stat.S_IMODE(status.st_mode),
                *owner,
                status.st_size if kind == tar.FILE else 0,
                status.st_mtime_ns,
                link,
                device,
                {**(xattrs or {}), **(told.xattrs or {})} if kind != tar.HARD_LINK else {},
            )
        )

    def _mark(self, path: bytes) -> bytes:
        self._count()
        return tar_writing.header(tar.Entry(path, tar.FILE, 0o600, 0, 0, 0, 0, b"", (0, 0)))

    def _count(self) -> None:
        self.entries += 1
        self._limits.check_entries(self.entries)

    def _limit(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.size:
            raise refused(
                f"The files of the layer are larger than {self._limits.size} bytes, holes included."
            )


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Many small pieces as few large ones."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _opened(root: int, path: bytes) -> int:
    """A folder below ``root``, to be read. Raises OSError."""
    place = open_folder(root, path)
    try:
        return os.open(".", _LIST, dir_fd=place)
    finally:
        os.close(place)


def _joined(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above and name else above or name


def _xattr(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None  # it has none, or its file system has no such attributes


def _xattrs(fd: int) -> dict[str, bytes]:
    """Attributes that are part of an image: not the overlay's own, nor those of this machine."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    found = {}
    for name in names:
        if name.startswith(_KEPT) and not name.startswith(_OVERLAY):
            value = _xattr(fd, name)
            if value is not None:
                found[name] = value
    return found
