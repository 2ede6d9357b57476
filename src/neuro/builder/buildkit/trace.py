"""What BuildKit tells of its work, in our manner."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from neuro.builder.buildkit import protobuf
from neuro.builder.reporting import Report, Task

_VERTEX, _STATUS, _LOG = 1, 2, 3
_MOST = 10_000  # of its steps that are followed, and of what these fetch
_ALMOST = 0.99  # that something is done is said by its step


@dataclass(frozen=True)
class Failure:
    """The step that failed, by its name without its place, and the last lines of its output."""

    step: str
    error: str
    output: tuple[str, ...]


@dataclass
class _Vertex:
    digest: bytes = b""
    name: str = ""
    is_cached: bool = False
    is_begun: bool = False
    is_done: bool = False
    error: str = ""


class Trace:
    """Follows one build, and tells a report of it."""

    def __init__(self, report: Report) -> None:
        self.failure: Failure | None = None
        self._report = report
        self._tasks: dict[bytes, Task] = {}
        self._over: set[bytes] = set()
        self._fetched: dict[bytes, dict[bytes, tuple[int, int]]] = {}

    def take(self, record: str) -> None:
        """One record, as the daemon's answer has it; nothing for an empty one.

        Raises ValueError for what is not a record.
        """
        try:
            status = base64.b64decode(record, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        for name, value in protobuf.fields(status):
            if name == _VERTEX and isinstance(value, bytes):
                self._vertex(_vertex(value))
            elif name == _STATUS and isinstance(value, bytes):
                self._status(value)
            elif name == _LOG and isinstance(value, bytes):
                self._log(value)

    def _vertex(self, vertex: _Vertex) -> None:
        if vertex.digest in self._over or not (vertex.is_begun or vertex.is_cached):
            return
        task = self._tasks.get(vertex.digest)
        if task is None:
            if len(self._tasks) >= _MOST:
                return
            task = self._tasks[vertex.digest] = self._report.begin(vertex.name)
        if vertex.error:
            self._over.add(vertex.digest)
            step = vertex.name.partition("] ")[2] or vertex.name
            if self.failure is None:
                self.failure = Failure(step, vertex.error, task.ended())
            task.fail(vertex.error)
        elif vertex.is_done or vertex.is_cached:
            self._over.add(vertex.digest)
            task.end(cached=vertex.is_cached)

    def _status(self, message: bytes) -> None:
        """How much there is of one of the things that a step fetches, such as a layer."""
        one, digest, here, size = b"", b"", 0, 0
        for name, value in protobuf.fields(message):
            if name == 1 and isinstance(value, bytes):
                one = value
            elif name == 2 and isinstance(value, bytes):
                digest = value
            elif name == 4 and isinstance(value, int):
                here = value
            elif name == 5 and isinstance(value, int):
                size = value
        task = self._tasks.get(digest)
        known = self._fetched.setdefault(digest, {}) if task is not None else {}
        if task is None or size <= 0 or digest in self._over or len(known) >= _MOST:
            return
        known[one] = min(here, size), size
        share = sum(part for part, _ in known.values()) / sum(whole for _, whole in known.values())
        task.share(min(share, _ALMOST))

    def _log(self, message: bytes) -> None:
        digest, stream, piece = b"", 1, b""
        for name, value in protobuf.fields(message):
            if name == 1 and isinstance(value, bytes):
                digest = value
            elif name == 3 and isinstance(value, int):
                stream = value
            elif name == 4 and isinstance(value, bytes):
                piece = value
        task = self._tasks.get(digest)
        if task is not None:
            task.output(stream, piece)


def _vertex(message: bytes) -> _Vertex:
    found = _Vertex()
    for name, value in protobuf.fields(message):
        if name == 1 and isinstance(value, bytes):
            found.digest = value
        elif name == 3:
            found.name = protobuf.text(value)
        elif name == 4:
            found.is_cached = bool(value)
        elif name == 5:
            found.is_begun = True
        elif name == 6:
            found.is_done = True
        elif name == 7:
            found.error = protobuf.text(value)
    return found
