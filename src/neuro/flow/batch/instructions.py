"""Instructions of a bake's state to its executor. Plain values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from neuro.domain.bakes import TaskRequest, TaskStatus
from neuro.flow.model import FullId, LocalCommand, ResolvedTask


class LookUp(msgspec.Struct, frozen=True):
    """See whether an earlier outcome is kept for ``key``; answer with ``looked_up``."""

    id: FullId
    task: ResolvedTask
    key: str


class Submit(msgspec.Struct, frozen=True):
    """Submit a try of a task; answer with ``submitted`` or ``refused``."""

    id: FullId
    number: int
    task: ResolvedTask


class Kill(msgspec.Struct, frozen=True):
    """End a job; its end is then told like any other."""

    job_id: str


class ReadLog(msgspec.Struct, frozen=True):
    """Read the whole output of a job that is over; answer with ``log_read``."""

    id: FullId
    number: int
    job_id: str


class RunLocal(msgspec.Struct, frozen=True):
    """Run a command on this machine; answer with ``local_done``."""

    command: LocalCommand


class SaveRecord(msgspec.Struct, frozen=True):
    """Keep what has become of a task."""

    request: TaskRequest


class Redraw(msgspec.Struct, frozen=True):
    """The graph below a prefix is known now: what each node needs."""

    prefix: FullId
    graph: Mapping[FullId, tuple[FullId, ...]]


class Finish(msgspec.Struct, frozen=True):
    """All is over; the attempt ends like this."""

    result: TaskStatus
    message: str | None


Instruction = LookUp | Submit | Kill | ReadLog | RunLocal | SaveRecord | Redraw | Finish
