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


@dataclass(frozen=True)
class _Vertex:
    digest: bytes
    name: str
    is_cached: bool
    is_begun: bool
    is_done: bool
    error: str


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
        told = protobuf.Message(message)
        one, digest = told.data(1), told.data(2)
        here, size = told.number(4), told.number(5)
        task = self._tasks.get(digest)
        known = self._fetched.setdefault(digest, {}) if task is not None else {}
        if task is None or size <= 0 or digest in self._over or len(known) >= _MOST:
            return
        known[one] = min(here, size), size
        share = sum(part for part, _ in known.values()) / sum(whole for _, whole in known.values())
        task.share(min(share, _ALMOST))

    def _log(self, message: bytes) -> None:
        told = protobuf.Message(message)
        task = self._tasks.get(told.data(1))
        if task is not None:
            task.output(told.number(3, 1), told.data(4))


def _vertex(message: bytes) -> _Vertex:
    told = protobuf.Message(message)
    return _Vertex(
        digest=told.data(1),
        name=told.text(3),
        is_cached=told.number(4) != 0,
        is_begun=5 in told,
        is_done=6 in told,
        error=told.text(7),
    )
