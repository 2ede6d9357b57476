"""Files for the daemon: a folder's, piece by piece, as fsutil's protocol has it.

First it is told what there is, each folder before what is in it, in order of names. Then it asks
for the files that it wants by their numbers in that list.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from neuro.builder.buildkit import protobuf
from neuro.builder.buildkit.session import CallRefused
from neuro.builder.views import Context, Found

_STAT, _REQUEST, _DATA, _END, _ERROR = range(5)  # kinds of packets
_PIECE = 32 << 10
# Go's os.FileMode.
_FOLDER, _LINK = 1 << 31, 1 << 27
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class Files(Protocol):
    """What is shared: packets that describe each, and the bytes of one by its number."""

    def described(self) -> Iterator[bytes]: ...

    def pieces(self, number: int) -> Iterator[bytes]: ...


class OneFile:
    """A folder with one file, of which there is only the text."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content

    def described(self) -> Iterator[bytes]:
        """See Files."""
        yield _described(self._name, 0o644, len(self._content), 0)

    def pieces(self, number: int) -> Iterator[bytes]:
        """See Files."""
        if number != 0:
            raise CallRefused(f"there is no file {number}")
        for at in range(0, len(self._content), _PIECE):
            yield self._content[at : at + _PIECE]


class NoFiles:
    """An empty folder."""

    def described(self) -> Iterator[bytes]:
        """See Files."""
        return iter(())

    def pieces(self, number: int) -> Iterator[bytes]:
        """See Files."""
        raise CallRefused(f"there is no file {number}")


class OfContext:
    """A build's context, all of it root's. Sockets, pipes and devices are left out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._files: dict[int, Found] = {}

    def described(self) -> Iterator[bytes]:
        """See Files."""
        number = 0
        for entry in self._context.entries():
            found = self._context.find(entry.path)
            if found is None or not (found.is_folder or found.is_link or found.is_file):
                continue
            if found.is_file:
                self._files[number] = found
            yield self._packet(found)
            number += 1

    def _packet(self, found: Found) -> bytes:
        mode = found.mode & 0o777
        target, size = "", 0
        for bit, theirs in _BITS:
            mode |= theirs if found.mode & bit else 0
        if found.is_folder:
            mode |= _FOLDER
        elif found.is_link:
            mode, target = _LINK | 0o777, self._context.read_link(found)
        else:
            size = found.status.st_size
        return _described(found.path, mode, size, found.status.st_mtime_ns, target)

    def pieces(self, number: int) -> Iterator[bytes]:
        """See Files."""
        found = self._files.get(number)
        if found is None:
            raise CallRefused(f"there is no file {number}")
        fd = self._context.open(found)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CallRefused(f"{found.path} was replaced while it was read")
            while piece := os.read(fd, _PIECE):
                yield piece
        finally:
            os.close(fd)


def _described(path: str, mode: int, size: int, moment: int, target: str = "") -> bytes:
    told = (
        protobuf.field(1, path)
        + protobuf.field(2, mode)
        + protobuf.field(5, size)
        + protobuf.field(6, moment)
        + protobuf.field(7, target)
    )
    return protobuf.inner(2, told)


class Sharing:
    """One call for a folder's files: an Exchange."""

    def __init__(self, files: Files) -> None:
        self.is_over = False
        self._files = files
        self._going: Iterator[bytes] = self._all()
        self._wanted: deque[int] = deque()
        self._ends = False

    def take(self, message: bytes) -> None:
        """See Exchange."""
        packet = protobuf.Message(message)
        kind = packet.number(1)
        if kind == _REQUEST:
            self._wanted.append(packet.number(3))
        elif kind == _END:
            self._ends = True
        elif kind == _ERROR:
            raise CallRefused(packet.text(4))

    def give(self) -> bytes | None:
        """See Exchange."""
        packet = next(self._going, None)
        if packet is None and self._wanted:
            self._going = self._sent(self._wanted.popleft())
            packet = next(self._going)
        elif packet is None and self._ends and not self.is_over:
            self.is_over = True
            packet = protobuf.field(1, _END)
        return packet

    def _all(self) -> Iterator[bytes]:
        yield from self._files.described()
        # A packet without anything says that this was all: its kind is 0, which nobody writes. gRPC
        # has messages of no bytes.
        yield b""

    def _sent(self, number: int) -> Iterator[bytes]:
        head = protobuf.field(1, _DATA) + protobuf.field(3, number)
        for piece in self._files.pieces(number):
            yield head + protobuf.field(4, piece)
        yield head
