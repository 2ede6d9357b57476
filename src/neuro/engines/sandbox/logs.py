"""Reading a job's log: blocks, line times, and what came since a moment.

The writing side is ``output``.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime

from neuro.engines.sandbox.output import RECORD, segment_path, segments

BLOCK = 256 << 10


class LogReader:
    """A position in a job's log. Not for concurrent use. Raises FileNotFoundError at first use
    for a log that does not exist."""

    def __init__(self, folder: str, position: int | None = None) -> None:
        self._folder = folder
        self._start = -1
        self._fd = -1
        self.position = position if position is not None else -1

    async def read(self) -> bytes:
        """The next block, or b"" where the log ends now."""
        if self._fd >= 0:
            buffer = bytearray(BLOCK)
            try:
                # What is in the page cache is here at once; only a cold disk needs a thread.
                size = os.preadv(self._fd, [buffer], self.position - self._start, os.RWF_NOWAIT)
            except OSError:
                size = 0
            if size:
                self.position += size
                return bytes(memoryview(buffer)[:size])
        return await asyncio.to_thread(self.read_now)

    def read_now(self) -> bytes:
        """``read``, blocking."""
        while True:
            if self._fd < 0:
                self._open(segments(self._folder))
            data = os.pread(self._fd, BLOCK, self.position - self._start) if self._fd >= 0 else b""
            if data:
                self.position += len(data)
                return data
            starts = segments(self._folder)
            if self._fd >= 0 and (not starts or starts[-1] <= self._start):
                return b""
            # A newer segment exists, so this one is complete: look at its end once more.
            data = os.pread(self._fd, BLOCK, self.position - self._start) if self._fd >= 0 else b""
            if data:
                self.position += len(data)
                return data
            self.close()
            if not starts:
                return b""

    def _open(self, starts: list[int]) -> None:
        if not starts:
            return
        self.position = max(self.position, starts[0])  # what was dropped cannot be read
        self._start = starts[bisect_right(starts, self.position) - 1]
        try:
            self._fd = os.open(segment_path(self._folder, self._start), os.O_RDONLY)
        except FileNotFoundError:  # dropped just now
            self._fd = -1

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def extent(folder: str, since: int | None = None) -> tuple[int, int]:
    """The offsets of the first byte that is kept, or that came at ``since`` (ns) or later, and of
    the end. Blocking. Raises FileNotFoundError for a log that does not exist.
    """
    starts = segments(folder)
    if not starts:
        return 0, 0
    end = starts[-1] + os.path.getsize(segment_path(folder, starts[-1]))
    if since is None:
        return starts[0], end
    for start in starts:
        offsets, times = _index(folder, start)
        number = bisect_left(times, since)
        if number < len(offsets):
            return offsets[number], end
    return end, end


class Stamper:
    """Puts the time of its first byte before each line."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._start = -1
        self._offsets: array[int] = array("Q")
        self._times: array[int] = array("Q")
        self._at_line_start = True

    def stamp(self, data: bytes, end: int) -> bytes:
        """``data`` with times; ``end`` is the offset after it. Blocking."""
        position = end - len(data)
        self._load(position, end)
        parts: list[bytes] = []
        for line in _lines(data):
            if self._at_line_start:
                parts.append(self._time(position))
            parts.append(line)
            position += len(line)
            self._at_line_start = line.endswith(b"\n")
        return b"".join(parts)

    def _load(self, position: int, end: int) -> None:
        starts = segments(self._folder)
        known = [start for start in starts if start <= position]
        start = known[-1] if known else (starts[0] if starts else 0)
        if start != self._start or (self._offsets and self._offsets[-1] < end):
            self._start = start
            self._offsets, self._times = _index(self._folder, start)

    def _time(self, position: int) -> bytes:
        number = bisect_right(self._offsets, position) - 1
        nanoseconds = self._times[max(0, number)] if self._times else 0
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        moment = datetime.fromtimestamp(seconds, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode()


def _lines(data: bytes) -> list[bytes]:
    """Lines by newline alone: a progress bar's carriage returns stay within one line."""
    pieces = data.split(b"\n")
    lines = [piece + b"\n" for piece in pieces[:-1]]
    return [*lines, pieces[-1]] if pieces[-1] else lines


def _index(folder: str, start: int) -> tuple[array[int], array[int]]:
    """The offsets and times (ns) of a segment's chunks."""
    try:
        with open(segment_path(folder, start, "idx"), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        data = b""
    numbers = array("Q", data[: len(data) - len(data) % RECORD.size])
    return numbers[0::2], numbers[1::2]
