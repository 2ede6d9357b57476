"""ADD's archives: recognized by what they hold, unpacked into a layer.

A tar can hold anything. Names that lead upwards are refused; those that lead through links are
followed in the tree that the layer makes, with its top as their root.
"""

from __future__ import annotations

import bz2
import errno
import lzma
import os
import stat
from collections.abc import Callable
from typing import cast

from neuro.builder.faults import BuildFault
from neuro.builder.placing import Dress, Placer
from neuro.engines.images import compression, tar
from neuro.engines.images.compression import Decompressor
from neuro.engines.images.faults import ImageFault, shown
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import parts_of

_BZIP2, _XZ = b"BZh", b"\xfd7zXZ\0"
_DEVICES = {tar.CHARACTER: "character", tar.BLOCK_DEVICE: "block"}
_MEMORY = 256 << 20  # bytes that xz may ask for


def is_archive(fd: int) -> bool:
    """Whether an open file is a tar, compressed or not: its first entry can be read."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    try:
        archive = _archive(fd)
        return next(iter(archive), None) is not None
    except (ImageFault, ImportError, EOFError, lzma.LZMAError):
        return False
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def _archive(fd: int) -> tar.Archive:
    os.lseek(fd, 0, os.SEEK_SET)
    make = _decompressors(os.pread(fd, 6, 0))
    return tar.Archive(compression.pieces(fd, make, Limits()))


def _decompressors(start: bytes) -> Callable[[], Decompressor] | None:
    if start.startswith(_BZIP2):
        return lambda: cast(Decompressor, bz2.BZ2Decompressor())
    if start.startswith(_XZ):
        return lambda: cast(Decompressor, lzma.LZMADecompressor(memlimit=_MEMORY))
    return compression.decompressors(compression.kind_of(start[:4]))


def unpack(fd: int, placer: Placer, folder: str, owner: tuple[int, int] | None) -> None:
    """Put what an archive holds below a folder of the tree. Raises BuildFault, OSError.

    ``owner`` is whose all of it becomes; None leaves each file the owner that the archive names.
    """
    archive = _archive(fd)
    limits = Limits()
    size = 0
    try:
        for number, entry in enumerate(archive):
            limits.check_entries(number)
            size += entry.size
            limits.check_size(size)
            _Unpacking(placer, folder, owner).put(entry, archive)
    except ImageFault as fault:
        raise BuildFault(fault.sentence.replace("The layer", "The archive")) from None


class _Unpacking:
    def __init__(self, placer: Placer, folder: str, owner: tuple[int, int] | None) -> None:
        self._placer = placer
        self._folder = folder
        self._owner = owner

    def put(self, entry: tar.Entry, archive: tar.Archive) -> None:
        parts = parts_of(entry.name)
        if not parts:
            return
        *above, name = (os.fsdecode(part) for part in parts)
        parent = self._placer.view.real("/".join((self._folder, *above)))
        self._placer.make_folders(parent)
        path = f"{parent}/{name}" if parent else name
        dress = Dress(
            entry.mode,
            self._owner or (entry.user, entry.group),
            entry.time,
            tuple(
                (key, value)
                for key, value in entry.xattrs.items()
                if key.startswith(("user.", "security.capability"))
                and not key.startswith("user.overlay.")
            ),
        )
        self._make_room(path, entry)
        if entry.kind == tar.FOLDER:
            self._placer.put_folder(path, dress)
        elif entry.kind == tar.LINK:
            self._placer.put_link(path, os.fsdecode(entry.link), dress)
        elif entry.kind == tar.HARD_LINK:
            self._hard_link(path, entry, dress)
        elif entry.kind == tar.FIFO:
            self._placer.put_pipe(path, dress)
        elif entry.kind in _DEVICES:
            self._placer.put_device(path, _DEVICES[entry.kind], *entry.device, dress)
        else:
            self._placer.put_pieces(path, dress, entry.size, archive.data())

    def _make_room(self, path: str, entry: tar.Entry) -> None:
        """Whatever is in the place of something else gives way to it."""
        found = self._placer.view.find(path)
        if found is None or found.is_folder == (entry.kind == tar.FOLDER):
            return
        if found.is_folder:
            self._placer.remove_folder(path)
        else:
            self._placer.remove_file(path)

    def _hard_link(self, path: str, entry: tar.Entry, dress: Dress) -> None:
        *above, name = [os.fsdecode(part) for part in parts_of(entry.link)] or [""]
        parent = self._placer.view.real("/".join((self._folder, *above)))
        original = f"{parent}/{name}" if parent else name
        found = self._placer.view.find(original)
        if not name or found is None or found.is_folder or not self._placer.has(original):
            raise BuildFault(
                f"The archive has a hard link to what is not a file in it: {shown(entry.name)}."
            )
        if original == path:
            return
        try:
            self._placer.put_hard_link(path, original, dress)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            raise BuildFault(
                "The archive has a file with more names than files can have."
            ) from None
