"""Many files in one stream: the frames of the platform's own bulk transfers.

A stream is a sequence of frames and ends with an END frame, so that a broken one is never taken
for a whole. Every frame carries a CRC-32 of its path and data. A file of up to ``PIECE_BYTES`` is
one FILE frame; a longer one is a FILE frame with MORE set, and PART frames, the last of them
without MORE. Paths are relative, UTF-8, with ``/`` between names.

One frame on the wire, little-endian: kind (1 byte), flags (1), length of the path (2), length of
the data (4), CRC-32 (4), path, data.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, IntFlag
from struct import Struct
from zlib import crc32

import msgspec

from neuro.domain.errors import InvalidInput

# What ``GET /config`` names among its features where a server takes such streams.
BULK_FEATURE = "storage-bulk"
PIECE_BYTES = 1 << 20
MAX_DATA_BYTES = 4 << 20

_HEADER = Struct("<BBHII")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a frame is."""

    FOLDER = 1  # a folder, which may stay empty
    FILE = 2  # the beginning of a file, or all of it
    PART = 3  # the next bytes of the file that was begun before
    ABORT = 4  # the file that was begun could not be read to its end: forget it
    FAULT = 5  # the sender cannot give ``path``; data is a FaultMessage in JSON
    END = 6  # nothing follows


class Flag(IntFlag):
    """What there is to know about a frame."""

    NONE = 0
    MORE = 1  # PART frames of the same file follow
    EXECUTABLE = 2  # the file may be run as a program


class Frame(msgspec.Struct, frozen=True):
    """One decoded frame whose checksum was right; its data is in ``parts``, which share memory
    with what was fed to the reader."""

    kind: int
    path: str
    parts: list[memoryview] = []
    flags: int = 0
    size: int = 0

    @property
    def has_more(self) -> bool:
        return bool(self.flags & Flag.MORE)

    @property
    def executable(self) -> bool:
        return bool(self.flags & Flag.EXECUTABLE)

    @property
    def data(self) -> bytes:
        """All of the data in one piece."""
        return b"".join(self.parts)


class FaultMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one file of a bulk transfer failed; ``errno`` is symbolic."""

    path: str
    error: str
    errno: str | None = None


class BulkSummary(msgspec.Struct, frozen=True):
    """The last line of the answer to a bulk upload: what was written, and what was not."""

    files: int
    folders: int
    bytes: int
    failed: int


def encode_frame(kind: int, path: str, data: bytes = b"", flags: int = 0) -> bytes:
    """One frame as bytes."""
    return encode_head(kind, path, data, flags) + data


def encode_head(kind: int, path: str, data: bytes = b"", flags: int = 0) -> bytes:
    """What stands before a frame's data: a large piece need not be copied to be sent."""
    name = path.encode()
    return _HEADER.pack(kind, flags, len(name), len(data), crc32(data, crc32(name))) + name


END = encode_frame(Kind.END, "")

# The system writes so many parts at once; more are joined first.
_MAX_PARTS = 64


class FrameReader:
    """Cuts a byte stream into frames, whatever the sizes of the pieces it comes in.

    No byte of a file is copied on the way: of an upload of 1 GiB, copies were half of the time.
    """

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        self._header: tuple[int, int, int, int, int] | None = None
        self.ended = False

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are whole now. Raises InvalidInput for a damaged stream."""
        self._pieces.append(memoryview(piece))
        self._size += len(piece)
        frames: list[Frame] = []
        while not self.ended:
            if self._header is None:
                if self._size < HEADER_BYTES:
                    break
                self._header = self._read_header()
            kind, flags, path_length, length, expected = self._header
            if self._size < path_length + length:
                break
            name = b"".join(self._take(path_length))
            parts = self._take(length)
            self._header = None
            found = crc32(name)
            for part in parts:
                found = crc32(part, found)
            if found != expected:
                raise InvalidInput("The stream of files was damaged on its way: send it again.")
            if kind == Kind.END:
                self.ended = True
            else:
                frames.append(Frame(kind, _decoded(name), parts, flags, length))
        return frames

    def _read_header(self) -> tuple[int, int, int, int, int]:
        header = _HEADER.unpack(b"".join(self._take(HEADER_BYTES)))
        if header[3] > MAX_DATA_BYTES or not Kind.FOLDER <= header[0] <= Kind.END:
            raise InvalidInput("This is not a stream of files: a frame is malformed.")
        return header

    def _take(self, count: int) -> list[memoryview]:
        self._size -= count
        parts: list[memoryview] = []
        while count:
            first = self._pieces[0]
            if len(first) > count:
                parts.append(first[:count])
                self._pieces[0] = first[count:]
                break
            parts.append(self._pieces.popleft())
            count -= len(first)
        return parts if len(parts) <= _MAX_PARTS else [memoryview(b"".join(parts))]


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"The name {name!r} is not in UTF-8.") from None
