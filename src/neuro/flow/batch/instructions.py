"""Instructions of a bake's state to its executor. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuro.domain.bakes import TaskRequest, TaskStatus
from neuro.flow.model import FullId, LocalCommand, ResolvedTask


@dataclass(frozen=True, slots=True)
class LookUp:
    """See whether an earlier outcome is kept for ``key``; answer with ``looked_up``."""

    id: FullId
    task: ResolvedTask
    key: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit a try of a task; answer with ``submitted`` or ``refused``."""

    id: FullId
    number: int
    task: ResolvedTask


@dataclass(frozen=True, slots=True)
class Kill:
    """End a job; its end is then told like any other."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the whole output of a job that is over; answer with ``log_read``."""

    id: FullId
    number: int
    job_id: str


@dataclass(frozen=True, slots=True)
class RunLocal:
    """Run a command on this machine; answer with ``local_done``."""

    command: LocalCommand


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Keep what has become of a task."""

    request: TaskRequest


@dataclass(frozen=True, slots=True)
class Redraw:
    """The graph below a prefix is known now: what each node needs."""

    prefix: FullId
    graph: Mapping[FullId, tuple[FullId, ...]]


@dataclass(frozen=True, slots=True)
class Finish:
    """All is over; the attempt ends like this."""

    result: TaskStatus
    message: str | None


Instruction = LookUp | Submit | Kill | ReadLog | RunLocal | SaveRecord | Redraw | Finish
