"""What the protocol says of a run, made of what its exit record says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from neuro.engines.base import (
    ExitCause,
    Exited,
    RunRef,
    RunState,
    Started,
    Waiting,
    WaitReason,
)
from neuro.engines.sandbox.ending import ExitRecord


def started(ref: RunRef, at: int | None, state: Mapping[str, Any]) -> Started | None:
    """A run's start at a time in nanoseconds; None where it has not started.

    ``state`` is what the run told of itself.
    """
    where = state.get("where") or None
    return Started(ref=ref, at=_time(at), where=where) if at is not None else None


def waiting(ref: RunRef, state: Mapping[str, Any]) -> Waiting | None:
    """What a run waits for that told its ``state``: the image that is pulled for it."""
    told = state.get("waiting")
    if told is None or state.get("started") is not None:
        return None
    return Waiting(
        ref=ref,
        at=_time(told["at"]),
        reason=WaitReason.PULLING,
        description="Its image is pulled",
        progress=told["progress"],
    )


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
    return RunState(started=started(ref, record.started, {}), exited=exited(ref, record))


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
