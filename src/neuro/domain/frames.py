"""Many files in one stream: the frames of the platform's own bulk transfers.

A stream is a sequence of frames and ends with an END frame, so that a broken one is never taken
for a whole. Every frame carries a CRC-32 of its path and data. A file of up to ``PIECE_BYTES`` is
one FILE frame; a longer one is a FILE frame with MORE set, and PART frames, the last of them
without MORE. Paths are relative, UTF-8, with ``/`` between names.

One frame on the wire, little-endian: kind (1 byte), flags (1), length of the path (2), length of
the data (4), CRC-32 (4), path, data.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from zlib import crc32

import msgspec

from neuro.domain.errors import InvalidInput

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
    """One decoded frame whose checksum was right."""

    kind: int
    path: str
    data: bytes = b""
    flags: int = 0

    @property
    def has_more(self) -> bool:
        return bool(self.flags & Flag.MORE)

    @property
    def executable(self) -> bool:
        return bool(self.flags & Flag.EXECUTABLE)


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
    name = path.encode()
    header = _HEADER.pack(kind, flags, len(name), len(data), crc32(data, crc32(name)))
    return b"".join((header, name, data))


END = encode_frame(Kind.END, "")


class FrameReader:
    """Cuts a byte stream into frames, whatever the sizes of the pieces it comes in."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self.ended = False

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are whole now. Raises InvalidInput for a damaged stream."""
        buffer = self._rest
        buffer += piece
        frames: list[Frame] = []
        position = 0
        with memoryview(buffer) as view:
            while len(view) - position >= _HEADER.size:
                kind, flags, path_length, length, expected = _HEADER.unpack_from(view, position)
                if length > MAX_DATA_BYTES or not Kind.FOLDER <= kind <= Kind.END:
                    raise InvalidInput("This is no stream of files: a frame makes no sense.")
                begin = position + _HEADER.size
                middle = begin + path_length
                end = middle + length
                if end > len(view):
                    break
                if crc32(view[begin:end]) != expected:
                    raise InvalidInput("The stream of files was damaged on its way: send it again.")
                position = end
                if kind == Kind.END:
                    self.ended = True
                    break
                frames.append(_frame(kind, flags, bytes(view[begin:middle]), view[middle:end]))
        del buffer[:position]
        return frames


def _frame(kind: int, flags: int, name: bytes, data: memoryview) -> Frame:
    try:
        return Frame(kind, name.decode(), bytes(data), flags)
    except UnicodeDecodeError:
        raise InvalidInput(f"The name {name!r} is not in UTF-8.") from None
