"""What a build says while it goes on: steps with numbers, in BuildKit's plain manner."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from neuro.domain.printable import harmless, printable

_KEPT_LINES = 20  # of a step's output, for the end of a build that fails
_LONGEST_LINE = 4096
_LONGEST_NAME = 200
_HELD = 0.02  # seconds that a line may be held


class Report:
    """Writes to a stream, from several threads. ``clock`` is in seconds.

    Each write wakes everybody who reads along, which takes longer than to find a layer in the
    cache. So lines may be held until the next one that may not; whoever is about to wait for
    something flushes them.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._held: list[str] = []
        self._held_since = 0.0

    def begin(self, name: str, *, held: bool = False) -> Task:
        """A task by its name, such as ``[build 2/4] RUN make``."""
        with self._lock:
            self._count += 1
            number = self._count
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        task = Task(self, number, shown.replace("\n", " "), self._clock)
        task.say(task.name, held=held)
        return task

    def write(self, text: str, *, held: bool = False) -> None:
        """Lines as they are. They may be ``held`` if nothing is waited for afterwards."""
        with self._lock:
            now = self._clock() if held else 0.0
            if not self._held:
                self._held_since = now
            self._held.append(text)
            if not held or now - self._held_since >= _HELD:
                self._write_held()

    def flush(self) -> None:
        """Write what is held: something is waited for now."""
        with self._lock:
            if self._held:
                self._write_held()

    def _write_held(self) -> None:
        text = "".join(self._held)
        self._held.clear()
        self._stream.write(text)
        self._stream.flush()


class Task:
    """One of the things that a build does."""

    def __init__(self, report: Report, number: int, name: str, clock: Callable[[], float]) -> None:
        self.name = printable(name)
        self.last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._report = report
        self._number = number
        self._clock = clock
        self._began = clock()
        self._rest = b""
        self._told = -1

    def say(self, line: str, *, held: bool = False) -> None:
        """A line of ours."""
        self._report.write(f"#{self._number} {line}\n", held=held)

    def output(self, _stream: int, piece: bytes) -> None:
        """Some of a command's output, which ends anywhere."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > _LONGEST_LINE:
            self._line(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]

    def _line(self, line: bytes) -> None:
        # Of a bar that draws over itself, the last state is what was to be seen.
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        timed = f"{self._clock() - self._began:.3f} {harmless(text)}"
        self.last.append(timed)
        self.say(timed)

    def share(self, part: float) -> None:
        """How much of it is done, from 0 to 1: each quarter is told once."""
        quarter = int(part * 4)
        if quarter > self._told:
            self._told = quarter
            self.say(f"{quarter * 25}%")

    def end(self, *, cached: bool = False, held: bool = False) -> None:
        """It is done. Its line may be ``held`` if nothing is waited for afterwards."""
        self._finish()
        said = "CACHED" if cached else f"DONE {self._clock() - self._began:.1f}s"
        self.say(said, held=held)

    def fail(self, sentence: str) -> None:
        """It failed, for this reason."""
        self._finish()
        self.say(f"ERROR: {printable(sentence, keep=' ')}")

    def ended(self) -> tuple[str, ...]:
        """The last lines of the command's output."""
        self._finish()
        return tuple(self.last)

    def _finish(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""
