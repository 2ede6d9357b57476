"""How far a job has come, and which event brings it where: the whole of it, as a table.

Nobody else changes a phase. An event that the table does not have for a phase changes nothing: it
comes late, or was told before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum


class Phase(IntEnum):
    """How far a job has come. All but the first and the last hold the job's resources."""

    WAITING = 0  # in its engine's queue
    STARTING = 1  # its engine is asked to start its next run
    PAUSING = 2  # before its engine is asked again
    RUNNING = 3
    RECALLING = 4  # it is to end, and its engine may be starting its run
    WITHDRAWING = 5  # it is to end, and its engine may have its run, of which it has told nothing
    STOPPING = 6  # it is to end, and its run goes on
    OVER = 7


# Those in which a run has begun, and those in which the engine is to end whatever runs.
BEGUN = frozenset({Phase.RUNNING, Phase.STOPPING})
ENDING = frozenset({Phase.RECALLING, Phase.WITHDRAWING, Phase.STOPPING})


class Event(StrEnum):
    """What happens to a job."""

    SUBMITTED = "its record is in the database"
    TAKEN_OVER = "a server begins, and the engine knows nothing of its run"
    FOUND = "a server begins, and the engine has its run, which is not over"
    UNKNOWN = "a server begins, and the engine cannot say yet how its run is"
    ABSENT = "its engine was asked how its run is, and had nothing of it"
    PLACED = "it is given its resources"
    MOVED = "it is given another place than it had"
    NO_ROOM = "its node takes no more runs, and there is no other place for it yet"
    WAITS = "its engine says what its run waits for"
    STARTED = "its command runs"
    START_DONE = "its engine has the run"
    START_FAILED = "its engine was asked to start the run, and failed"
    NOT_READY = "its engine could not start the run, and has nothing of it"
    REFUSED = "its engine can never start the run"
    NOT_ASKED = "its engine was not asked to start the run yet, and is not going to be"
    RUN_OVER = "its run is over, and another one follows"
    END = "its run is over, and it is too"
    STOP = "somebody wants it to end"
    STOP_DONE = "its engine was asked to stop its run, and does"
    NOTHING_TO_STOP = "its engine was asked to stop its run, and will never have it"
    STOP_FAILED = "its engine was asked to stop its run, and failed"
    ALARM = "the time has come that it waited for"
    LIFE_SPAN = "its life span is another"


TABLE: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.WAITING, Event.SUBMITTED): Phase.WAITING,
    (Phase.WAITING, Event.TAKEN_OVER): Phase.WAITING,
    (Phase.WAITING, Event.LIFE_SPAN): Phase.WAITING,
    (Phase.WAITING, Event.PLACED): Phase.STARTING,
    (Phase.WAITING, Event.STOP): Phase.OVER,
    (Phase.WAITING, Event.ALARM): Phase.OVER,  # it was not scheduled in time
    (Phase.STARTING, Event.SUBMITTED): Phase.STARTING,  # its resources were reserved
    (Phase.STARTING, Event.TAKEN_OVER): Phase.STARTING,
    (Phase.STARTING, Event.FOUND): Phase.STARTING,
    (Phase.STARTING, Event.UNKNOWN): Phase.STARTING,
    (Phase.STARTING, Event.ABSENT): Phase.STARTING,  # it is begun once, however often it is asked
    (Phase.STARTING, Event.LIFE_SPAN): Phase.STARTING,
    (Phase.STARTING, Event.MOVED): Phase.STARTING,
    (Phase.STARTING, Event.NO_ROOM): Phase.PAUSING,
    (Phase.STARTING, Event.START_FAILED): Phase.PAUSING,
    (Phase.STARTING, Event.NOT_READY): Phase.PAUSING,
    (Phase.STARTING, Event.RUN_OVER): Phase.PAUSING,
    (Phase.STARTING, Event.WAITS): Phase.STARTING,
    (Phase.STARTING, Event.STARTED): Phase.RUNNING,
    (Phase.STARTING, Event.STOP): Phase.RECALLING,
    (Phase.STARTING, Event.REFUSED): Phase.OVER,
    (Phase.STARTING, Event.END): Phase.OVER,
    # A start of which only the answer was lost may be told of here.
    (Phase.PAUSING, Event.LIFE_SPAN): Phase.PAUSING,
    (Phase.PAUSING, Event.RUN_OVER): Phase.PAUSING,
    (Phase.PAUSING, Event.ALARM): Phase.STARTING,
    (Phase.PAUSING, Event.WAITS): Phase.PAUSING,
    (Phase.PAUSING, Event.STARTED): Phase.RUNNING,
    (Phase.PAUSING, Event.STOP): Phase.WITHDRAWING,
    (Phase.PAUSING, Event.REFUSED): Phase.OVER,
    (Phase.PAUSING, Event.END): Phase.OVER,
    (Phase.RUNNING, Event.FOUND): Phase.RUNNING,
    (Phase.RUNNING, Event.UNKNOWN): Phase.RUNNING,
    (Phase.RUNNING, Event.STARTED): Phase.RUNNING,  # it is known again
    (Phase.RUNNING, Event.LIFE_SPAN): Phase.RUNNING,
    (Phase.RUNNING, Event.RUN_OVER): Phase.PAUSING,
    (Phase.RUNNING, Event.STOP): Phase.STOPPING,
    (Phase.RUNNING, Event.ALARM): Phase.STOPPING,  # its life span is over
    (Phase.RUNNING, Event.END): Phase.OVER,
    (Phase.RECALLING, Event.LIFE_SPAN): Phase.RECALLING,
    (Phase.RECALLING, Event.STOP): Phase.RECALLING,
    (Phase.RECALLING, Event.STOP_FAILED): Phase.RECALLING,
    (Phase.RECALLING, Event.ALARM): Phase.RECALLING,
    (Phase.RECALLING, Event.FOUND): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.UNKNOWN): Phase.WITHDRAWING,
    # An earlier start of it may have been done, or be on its way: only a stop makes sure.
    (Phase.RECALLING, Event.ABSENT): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.NOT_ASKED): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.NOT_READY): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.START_DONE): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.START_FAILED): Phase.WITHDRAWING,
    (Phase.RECALLING, Event.STARTED): Phase.STOPPING,
    (Phase.RECALLING, Event.SUBMITTED): Phase.OVER,
    (Phase.RECALLING, Event.TAKEN_OVER): Phase.OVER,
    (Phase.RECALLING, Event.REFUSED): Phase.OVER,
    (Phase.RECALLING, Event.END): Phase.OVER,
    (Phase.WITHDRAWING, Event.LIFE_SPAN): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.STOP): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.STOP_DONE): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.STOP_FAILED): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.ALARM): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.ABSENT): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.NOT_READY): Phase.WITHDRAWING,
    (Phase.WITHDRAWING, Event.STARTED): Phase.STOPPING,
    (Phase.WITHDRAWING, Event.NOTHING_TO_STOP): Phase.OVER,
    (Phase.WITHDRAWING, Event.REFUSED): Phase.OVER,
    (Phase.WITHDRAWING, Event.END): Phase.OVER,
    (Phase.STOPPING, Event.FOUND): Phase.STOPPING,
    (Phase.STOPPING, Event.UNKNOWN): Phase.STOPPING,
    (Phase.STOPPING, Event.LIFE_SPAN): Phase.STOPPING,
    (Phase.STOPPING, Event.START_DONE): Phase.STOPPING,
    (Phase.STOPPING, Event.STOP): Phase.STOPPING,
    (Phase.STOPPING, Event.STOP_FAILED): Phase.STOPPING,
    (Phase.STOPPING, Event.ALARM): Phase.STOPPING,
    (Phase.STOPPING, Event.END): Phase.OVER,
}
