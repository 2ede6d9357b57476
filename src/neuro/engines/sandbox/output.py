"""A job's log on disk, as the supervisor writes it.

Segments of bytes named by the offset of their first one, and beside each an index of (offset, time)
pairs: one for each chunk that arrived, so every line's time and ``since`` can be found later.
A full disk loses nothing: ``NoSpace`` is raised, the bytes stay in the pipe and the job waits.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass

from neuro.engines.exhaustion import EXHAUSTED, FULL

RECORD = struct.Struct("<QQ")
_CHUNK = 1 << 20
_RESOLUTION = 1_000_000  # ns: chunks closer than this share one index record


class NoSpace(OSError):
    """The disk is full for now."""


@dataclass(frozen=True)
class Retention:
    """How much of a job's output is kept, in bytes, and in what portions it is dropped."""

    total: int = 1 << 30
    segment: int = 64 << 20


def segments(folder: str) -> list[int]:
    """The start offsets of the log's segments, oldest first. Raises FileNotFoundError."""
    return sorted(int(name[:-4]) for name in os.listdir(folder) if name.endswith(".log"))


def segment_path(folder: str, start: int, kind: str = "log") -> str:
    """The file of the segment that starts at offset ``start``; ``kind`` is log or idx."""
    return f"{folder}/{start:020d}.{kind}"


def kept_bytes(folder: str) -> int:
    """The size of a job's log as it is kept now; 0 where it cannot be read.

    Raises OSError where it can be read later.
    """
    try:
        return sum(os.path.getsize(segment_path(folder, start)) for start in segments(folder))
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return 0


class OutputLog:
    """Appends to a job's log. ``end`` is the offset after its last byte."""

    def __init__(self, folder: str, retention: Retention) -> None:
        self._folder = folder
        self._retention = retention
        self._recorded = 0
        self._unwritten = b""  # index records that found the disk full
        os.makedirs(folder, exist_ok=True)
        starts = segments(folder)
        self._start = starts[-1] if starts else 0
        self._open()

    def _open(self) -> None:
        """Open the segment that starts at ``_start``. Raises OSError, and then changes nothing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        log = os.open(segment_path(self._folder, self._start), flags, 0o600)
        try:
            index = os.open(segment_path(self._folder, self._start, "idx"), flags, 0o600)
        except OSError:
            os.close(log)
            raise
        self._log, self._index = log, index
        self.end = self._start + os.lseek(log, 0, os.SEEK_END)
        size = os.fstat(index).st_size
        self._index_end = size - size % RECORD.size  # a torn record is written over
        self._unwritten = b""

    def splice(self, pipe: int) -> int:
        """Move what ``pipe`` holds to the log without copying it; 0 at the pipe's end.

        Raises BlockingIOError when it is empty, NoSpace when the disk is full.
        """
        room = self._make_room()
        self._record()
        try:
            moved = os.splice(
                pipe, self._log, min(_CHUNK, room), flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
            )
        except OSError as error:
            raise _translated(error) from error
        self.end += moved
        return moved

    def write(self, data: bytes) -> int:
        """Append as much of ``data`` as fits; how much that was. Raises NoSpace."""
        room = self._make_room()
        self._record()
        try:
            written = os.write(self._log, data[:room])
        except OSError as error:
            raise _translated(error) from error
        self.end += written
        return written

    def kept(self) -> int:
        """How many bytes of the log are on disk."""
        return kept_bytes(self._folder)

    def read_since(self, offset: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``offset``, of the current segment only."""
        return os.pread(self._log, limit, max(0, offset - self._start))

    def close(self) -> None:
        """Close the files."""
        os.close(self._log)
        os.close(self._index)

    def _make_room(self) -> int:
        room = self._retention.segment - (self.end - self._start)
        if room > 0:
            return room
        try:
            self._begin_segment()
        except FileNotFoundError:
            # Somebody deleted the log: nobody will read it, and it must not fill the disk unseen.
            os.ftruncate(self._log, 0)
            os.lseek(self._log, 0, os.SEEK_SET)
            self._start = self.end
            return self._retention.segment
        starts = segments(self._folder)
        while len(starts) > 1 and self.end - starts[0] > self._retention.total:
            oldest = starts.pop(0)
            for kind in ("idx", "log"):
                try:
                    os.unlink(segment_path(self._folder, oldest, kind))
                except FileNotFoundError:
                    pass  # somebody else made room
        return self._retention.segment

    def _begin_segment(self) -> None:
        """Go on in a new segment. Raises NoSpace where the disk has no room for a file."""
        before = self._log, self._index, self._start
        self._start = self.end
        try:
            self._open()
        except OSError as error:
            self._start = before[2]
            raise _translated(error) from error
        for fd in before[:2]:
            os.close(fd)

    def _record(self) -> None:
        """Note when the bytes after ``end`` came, before a reader can see them."""
        now = time.time_ns()
        if now - self._recorded < _RESOLUTION and self.end != self._start:
            return
        self._recorded = now
        self._unwritten += RECORD.pack(self.end, now)
        try:
            written = os.pwrite(self._index, self._unwritten, self._index_end)
        except OSError as error:
            if error.errno not in FULL:
                raise
            written = 0
            self._unwritten = self._unwritten[: RECORD.size * 4096]
        self._index_end += written
        self._unwritten = self._unwritten[written:]


def _translated(error: OSError) -> OSError:
    if error.errno in FULL:
        return NoSpace(error.errno, os.strerror(error.errno))
    return error
