"""Where the reader of a log is: what to ask for after a lost connection, and what it has already.

Offsets count a job's whole output as it was printed. Times that the server puts before lines are
not part of it: a reader of these comes back at the beginning of its line, and leaves out what it
had of that.
"""

from __future__ import annotations


class LogPlace:
    """The place of one reader; ``begin`` each answer, and ``take`` what comes in it.

    >>> place = LogPlace()
    >>> place.begin(0), place.take(b"one\\n"), place.offset
    (0, b'one\\n', 4)
    >>> place.begin(10)  # six bytes of the output are not kept any more
    6
    """

    def __init__(self, *, timestamps: bool = False) -> None:
        self._timestamps = timestamps
        self._begun = False
        self._seen = 0  # the offset up to which all was taken
        self._at = 0  # that of the next byte of the answer, times aside
        self._line = 0  # that of the line which the answer is in
        self._in_time = timestamps
        self._time = 0  # how many bytes of the line's time the answer has given
        self._seen_time = 0  # how many of them were taken, of the line that begins at ``_seen``

    @property
    def offset(self) -> int:
        """What to come back with."""
        return self._line if self._timestamps else self._seen

    def begin(self, start: int) -> int:
        """An answer begins at this offset; how many bytes before it were dropped."""
        gone = max(0, start - self._seen) if self._begun else 0
        if gone or not self._begun:
            self._seen, self._seen_time = start, 0
        self._begun = True
        self._at = self._line = start
        self._in_time, self._time = self._timestamps, 0
        return gone

    def take(self, data: bytes) -> bytes:
        """What of the answer's next bytes is new."""
        if not self._timestamps:
            self._at = self._seen = self._seen + len(data)
            return data
        new = []
        while data:
            if self._in_time:
                size = data.find(b" ") + 1 or len(data)
                new.append(self._take_time(data[:size]))
            else:
                size = data.find(b"\n") + 1 or len(data)
                new.append(self._take_text(data[:size]))
            data = data[size:]
        return b"".join(new)

    def _take_time(self, piece: bytes) -> bytes:
        known = len(piece)
        if self._line >= self._seen:
            known = max(0, self._seen_time - self._time)
            self._seen_time = max(self._seen_time, self._time + len(piece))
        self._time += len(piece)
        self._in_time = not piece.endswith(b" ")
        return piece[known:]

    def _take_text(self, piece: bytes) -> bytes:
        known = min(len(piece), max(0, self._seen - self._at))
        self._at += len(piece)
        self._seen = max(self._seen, self._at)
        if piece.endswith(b"\n"):
            self._line, self._in_time, self._time = self._at, True, 0
            if self._at == self._seen:
                self._seen_time = 0
        return piece[known:]
