"""How far a node of a bake has come, and which event brings it where: the whole of it, as a table.

Nobody else changes a phase. An event that the table does not have for a phase is refused: it is a
mistake of the machine, never of a flow file or of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum


class Phase(IntEnum):
    """How far a node has come."""

    WAITING = 0  # for its needs
    READY = 1  # to be looked at
    QUEUED = 2  # for a place within its limit
    LOOKING = 3  # for an earlier outcome
    SUBMITTING = 4
    ACTIVE = 5  # its job is known and not over
    READING = 6  # its job's output
    PAUSING = 7  # before its next try
    OPEN = 8  # a call, a group or a local command that is under way
    DONE = 9


class Event(StrEnum):
    """An event in a node's life."""

    NEEDS_CLOSED = "all that it needs is closed"
    PUT_OFF = "its turn is in the main part of the bake"
    NO_PLACE = "no place within its limit is free"
    LOOK_UP = "an earlier outcome is looked for"
    SUBMIT = "a try is submitted"
    JOB_KNOWN = "its job is known"
    TRY_AGAIN = "its job has failed, and a try is left"
    JOB_OVER = "its job is over"
    GIVE_UP = "its last job's end is taken for its own"
    OPEN = "its graph, its rows or its command begin"
    END = "it ends"


TABLE: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.WAITING, Event.NEEDS_CLOSED): Phase.READY,
    # Looked at.
    (Phase.READY, Event.PUT_OFF): Phase.WAITING,
    (Phase.READY, Event.NO_PLACE): Phase.QUEUED,
    (Phase.READY, Event.LOOK_UP): Phase.LOOKING,
    (Phase.READY, Event.SUBMIT): Phase.SUBMITTING,
    (Phase.READY, Event.JOB_KNOWN): Phase.ACTIVE,  # of an earlier executor
    (Phase.READY, Event.OPEN): Phase.OPEN,
    (Phase.READY, Event.END): Phase.DONE,
    # In the queue; a try that is not the first may queue too.
    (Phase.QUEUED, Event.LOOK_UP): Phase.LOOKING,
    (Phase.QUEUED, Event.SUBMIT): Phase.SUBMITTING,
    (Phase.QUEUED, Event.OPEN): Phase.OPEN,
    (Phase.QUEUED, Event.GIVE_UP): Phase.READING,
    (Phase.QUEUED, Event.END): Phase.DONE,
    # Of a job.
    (Phase.LOOKING, Event.SUBMIT): Phase.SUBMITTING,
    (Phase.LOOKING, Event.END): Phase.DONE,
    (Phase.SUBMITTING, Event.JOB_KNOWN): Phase.ACTIVE,
    (Phase.SUBMITTING, Event.GIVE_UP): Phase.READING,
    (Phase.SUBMITTING, Event.END): Phase.DONE,
    (Phase.ACTIVE, Event.TRY_AGAIN): Phase.PAUSING,
    (Phase.ACTIVE, Event.JOB_OVER): Phase.READING,
    (Phase.ACTIVE, Event.END): Phase.DONE,  # the platform knows its job no more
    (Phase.READING, Event.END): Phase.DONE,
    (Phase.PAUSING, Event.NO_PLACE): Phase.QUEUED,
    (Phase.PAUSING, Event.SUBMIT): Phase.SUBMITTING,
    (Phase.PAUSING, Event.GIVE_UP): Phase.READING,
    # Of a call, a group or a local command.
    (Phase.OPEN, Event.END): Phase.DONE,
}


class ImpossibleEvent(RuntimeError):
    """An event that cannot happen to a node in its phase."""


def after(phase: Phase, event: Event) -> Phase:
    """The phase that an event leads to. Raises ImpossibleEvent for a pair that is not there."""
    try:
        return TABLE[phase, event]
    except KeyError:
        raise ImpossibleEvent(
            f"{event.name} cannot happen to a node that is {phase.name}"
        ) from None
