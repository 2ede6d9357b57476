"""What the protocol says of a run, made of what its exit record says."""

from __future__ import annotations

from datetime import UTC, datetime

from neuro.engines.base import ExitCause, Exited, RunRef, RunState, Started
from neuro.engines.sandbox.ending import ExitRecord


def started(ref: RunRef, at: int | None) -> Started | None:
    """A run's start at a time in nanoseconds; None where it has not started."""
    return Started(ref=ref, at=_time(at)) if at is not None else None


def exited(ref: RunRef, record: ExitRecord) -> Exited:
    """A run's end."""
    return Exited(
        ref=ref,
        at=_time(record.at),
        exit_code=record.exit_code,
        cause=_cause(record),
        message=record.message,
        output_bytes=record.output_bytes,
        peak_memory=record.peak_memory,
    )


def _cause(record: ExitRecord) -> ExitCause:
    try:
        return ExitCause(record.cause)
    except ValueError:  # a later version has causes that this one does not know
        code = record.exit_code
        return ExitCause.LOST if code is None else ExitCause.ERROR


def ended(ref: RunRef, record: ExitRecord) -> RunState:
    """The state of a run that is over."""
    return RunState(started=started(ref, record.started), exited=exited(ref, record))


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
