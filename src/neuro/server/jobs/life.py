"""The life of a job: from its record and what happened to what it is then, and what is to be done.

Pure: no clock, no engine, no database. ``phases`` has the table of phases and events that this
follows; the reconciler tells what happens and does what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from neuro.domain.jobs import Reason
from neuro.engines.base import ExitCause, Exited, RunState, Started, Waiting, WaitReason
from neuro.server.jobs import endings
from neuro.server.jobs.phases import ENDING, TABLE, Event, Phase
from neuro.server.jobs.record import JobRecord

# Between two looks for a place for a job that has lost its own; see ``Lane.place_for``.
NO_ROOM_SECONDS = 5.0
# Between the first two tries of a run that the machine is not ready for; the later pauses grow.
NOT_READY_SECONDS = 2.0
MAX_PAUSE_SECONDS = 30.0
# Between two tries of a stop that the engine failed at.
STOP_AGAIN_SECONDS = 1.0


class Told(msgspec.Struct, frozen=True):
    """An event that tells no more than that it happened; ``run`` where it is of one run."""

    event: Event
    run: int | None = None


class Given(msgspec.Struct, frozen=True):
    """PLACED, or MOVED: where the job's runs are, and which GPUs they see there."""

    event: Event
    gpus: tuple[str, ...]
    node: str = ""


class StartTrouble(msgspec.Struct, frozen=True):
    """START_FAILED, REFUSED or NO_ROOM: why, as a sentence."""

    event: Event
    run: int
    why: str


class Unknown(msgspec.Struct, frozen=True):
    """UNKNOWN: why, as a sentence."""

    why: str


class StopAsked(msgspec.Struct, frozen=True):
    """Somebody wants the job to end; the first reason stays."""

    reason: Reason


class StopAnswered(msgspec.Struct, frozen=True):
    """STOP_DONE, NOTHING_TO_STOP, or STOP_FAILED, of the stop with this number."""

    event: Event
    number: int


class Alarm(msgspec.Struct, frozen=True):
    """A moment has come. ``waits_for`` is a sentence: what a job in a queue waits for."""

    waits_for: str | None = None


class LifeSpanSet(msgspec.Struct, frozen=True):
    """The job may run for so many minutes; None for no limit."""

    minutes: int | None


Happening = (
    Told
    | Given
    | Waiting
    | Started
    | Exited
    | StartTrouble
    | Unknown
    | StopAsked
    | StopAnswered
    | Alarm
    | LifeSpanSet
)


class Free(msgspec.Struct, frozen=True):
    """Take the job off the board, with all that it holds."""


class Write(msgspec.Struct, frozen=True):
    """Keep the record, and tell whoever waits for it to change."""


class Start(msgspec.Struct, frozen=True):
    """Ask the engine to start a run, ``after_write`` once the database knows of it."""

    run: int
    after_write: bool


class Stop(msgspec.Struct, frozen=True):
    """Ask the engine to stop the job."""

    number: int


class RunIsOver(msgspec.Struct, frozen=True):
    """A run is over, and the job goes on."""


class Timer(msgspec.Struct, frozen=True):
    """Tell the job of an alarm at a moment, and at no earlier one; None for none at all."""

    at: datetime | None


Effect = Free | Write | Start | Stop | RunIsOver | Timer


class Decision(NamedTuple):
    """A job after an event, and what is to be done, in this order."""

    record: JobRecord
    effects: tuple[Effect, ...] = ()


def decide(record: JobRecord, happening: Happening, now: datetime) -> Decision:
    """What a job is after something happened, and what is to be done.

    What cannot happen to it, or was told before, changes nothing.
    """
    if isinstance(happening, Alarm) and (record.wake_at is None or now < record.wake_at):
        # Clocks drift, and an alarm may be on its way when it is put off.
        return Decision(record, () if record.wake_at is None else (Timer(record.wake_at),))
    event = _event_of(record, happening)
    phase = None if event is None else TABLE.get((record.phase, event))
    if event is None or phase is None:
        return Decision(record)
    after = _after(record, phase, happening, now)
    asks_to_stop = phase in ENDING and event not in _STOPS_NOTHING
    after = replace(
        after,
        wake_at=_wake_at(record, after, event, now),
        stops=record.stops + 1 if asks_to_stop else record.stops,
    )
    return Decision(after, tuple(_effects(record, after, event)))


def on_return(record: JobRecord, state: RunState | None, now: datetime) -> list[Happening]:
    """What happened to a job while there was no server. ``state`` is its run at the engine."""
    if state is None:
        if record.phase is Phase.WAITING and record.specification.schedule_timeout is None:
            return []  # nothing is to be done, and of these there may be very many
        return [endings.lost(record, now) if record.run_started else Told(Event.TAKEN_OVER)]
    told = _told_by(state)
    if state.exited is None and state.trouble is None:
        told.insert(state.started is not None, Told(Event.FOUND))
    return told


def on_resync(record: JobRecord, state: RunState | None, now: datetime) -> list[Happening]:
    """What a server may have missed of a job's run. ``record`` is the job when it asked."""
    if state is None:
        return [endings.lost(record, now) if record.run_started else Told(Event.ABSENT, record.run)]
    return _told_by(state)


def _told_by(state: RunState) -> list[Happening]:
    trouble = None if state.trouble is None else Unknown(state.trouble)
    every = (state.started, state.exited or trouble, None if state.exited else state.waiting)
    return [happening for happening in every if happening is not None]


def _event_of(record: JobRecord, happening: Happening) -> Event | None:
    """The table's word for it; None for what is of another run, or of an earlier stop."""
    match happening:
        case Told(event, run):
            return event if run in (None, record.run) else None
        case StartTrouble(event, run):
            return event if run == record.run else None
        case Given(event):
            return event
        case Waiting(ref=ref):
            return Event.WAITS if ref.run == record.run else None
        case Started(ref=ref):
            return Event.STARTED if ref.run == record.run else None
        case Exited(ref=ref):
            return _event_of_exit(record, happening) if ref.run == record.run else None
        case StopAnswered(event, number):
            return event if number == record.stops else None
        case Unknown():
            return Event.UNKNOWN
        case StopAsked():
            return Event.STOP
        case Alarm():
            return Event.ALARM
        case LifeSpanSet():
            return Event.LIFE_SPAN


def _event_of_exit(record: JobRecord, exited: Exited) -> Event:
    if exited.cause in _TROUBLES:
        return Event.NOT_READY
    return Event.RUN_OVER if endings.must_restart(record, exited) else Event.END


def _after(record: JobRecord, phase: Phase, happening: Happening, now: datetime) -> JobRecord:
    match happening:
        case Given(event, gpus, node):
            given = replace(record, phase=phase, gpus=gpus, node=node)
            return given.stepped(Reason.SCHEDULING, now) if event is Event.PLACED else given
        case Started(where=where) if record.phase is Phase.RUNNING:
            return _known_again(record, now, _place(where))
        case Waiting():
            return _waiting(_in(record, phase), happening)
        case Started(at=at, where=where):
            began = replace(record, phase=phase, tries=0)
            return began.stepped(Reason.RESTARTING if record.run else None, at, _place(where))
        case Exited():
            return _after_exit(record, phase, happening, now)
        case StartTrouble(Event.REFUSED, _, why):
            return endings.finished(record, endings.cannot_start(record, now, why))
        case StartTrouble(Event.NO_ROOM, _, why):
            return _saying(_in(record, phase), why, now)
        case StartTrouble(_, _, why):
            if phase is not Phase.PAUSING:
                return _in(record, phase)
            return _put_off(record, f"{_TROUBLES[ExitCause.NOT_READY]}: {why}", now)
        case Unknown(why):
            return _saying(_in(record, phase), f"{_UNKNOWN}: {why}", now)
        case StopAsked(reason):
            return _leaving(record, phase, reason, now)
        case Alarm(waits_for):
            return _after_alarm(record, phase, waits_for, now)
        case LifeSpanSet(minutes):
            return replace(record, max_run_time_minutes=minutes)
        case Told(Event.SUBMITTED) if phase is Phase.STARTING:
            return record.stepped(Reason.SCHEDULING, now)
        case Told() | StopAnswered():
            return endings.withdrawn(record, now) if phase is Phase.OVER else _in(record, phase)


def _after_exit(record: JobRecord, phase: Phase, exited: Exited, now: datetime) -> JobRecord:
    if exited.cause not in _TROUBLES:
        ended = endings.finished if phase is Phase.OVER else endings.restarted
        return ended(record, exited)
    if phase is not Phase.PAUSING:
        return _in(record, phase)
    return _put_off(record, f"{_TROUBLES[exited.cause]}: {exited.message or ''}", now)


def _after_alarm(
    record: JobRecord, phase: Phase, waits_for: str | None, now: datetime
) -> JobRecord:
    match record.phase:
        case Phase.WAITING:
            return _leaving(record, phase, Reason.SCALE_UP_FAILED, now, waits_for)
        case Phase.RUNNING:
            return _leaving(record, phase, Reason.LIFE_SPAN_ENDED, now)
        case _:
            return _in(record, phase)


def _leaving(
    record: JobRecord, phase: Phase, reason: Reason, now: datetime, waits_for: str | None = None
) -> JobRecord:
    leaving = replace(record, stop_reason=record.stop_reason or reason.value)
    if phase is Phase.OVER:
        return endings.withdrawn(leaving, now, waits_for)
    return _in(leaving, phase)


def _in(record: JobRecord, phase: Phase) -> JobRecord:
    return replace(record, phase=phase)


_UNKNOWN = "The server cannot look after the job yet"
# Of runs that nothing is wrong with: they are tried again.
_TROUBLES = {
    ExitCause.NOT_READY: "The server cannot start jobs now, and tries again",
    ExitCause.VOLUME_NOT_READY: "The job cannot start now, and the server tries again",
}


def _put_off(record: JobRecord, why: str, now: datetime) -> JobRecord:
    """It is not the job's fault: it keeps what it was given, and its run is tried again."""
    return _saying(replace(record, phase=Phase.PAUSING, tries=record.tries + 1), why, now)


def _place(where: str | None) -> str | None:
    return None if where is None else f"It runs on {where}"


def _known_again(record: JobRecord, now: datetime, place: str | None) -> JobRecord:
    said = record.transitions[-1].description or ""
    return _saying(record, place, now) if said.startswith(_UNKNOWN) else record


def _waiting(record: JobRecord, waiting: Waiting) -> JobRecord:
    """What it waits for takes the place of what it waited for: progress is no history."""
    words = waiting.description or ""
    if waiting.progress is not None:
        words = f"{words} ({waiting.progress:.0%})".lstrip()
    description = words or None
    last = record.transitions[-1] if record.transitions else None
    if last is None or last.reason not in set(WaitReason):
        return record.stepped(waiting.reason, waiting.at, description)
    known = last.reason == waiting.reason and last.description == description
    if known or waiting.at < last.transition_time:  # told late
        return record
    before = replace(record, transitions=record.transitions[:-1])
    return before.stepped(waiting.reason, waiting.at, description)


def _saying(record: JobRecord, sentence: str | None, now: datetime) -> JobRecord:
    last = record.transitions[-1] if record.transitions else None
    if last is not None and last.description == sentence:
        return record
    return record.stepped(last.reason if last else None, now, sentence)


def _wake_at(before: JobRecord, after: JobRecord, event: Event, now: datetime) -> datetime | None:
    """When the job is to be told of an alarm, in its new phase."""
    match after.phase:
        case Phase.WAITING:
            timeout = after.specification.schedule_timeout
            return None if timeout is None else after.created_at + timedelta(seconds=timeout)
        case Phase.RUNNING:
            return after.deadline
        case Phase.OVER:
            return None
    if event in (Event.LIFE_SPAN, Event.WAITS):
        return before.wake_at
    if event is Event.STOP_FAILED:
        return now + timedelta(seconds=STOP_AGAIN_SECONDS)
    if after.phase is Phase.PAUSING:
        return now + timedelta(seconds=_pause(before, after, event))
    return None


def _pause(before: JobRecord, after: JobRecord, event: Event) -> float:
    if event is Event.RUN_OVER:
        return endings.backoff(before.run)
    if event is Event.NO_ROOM:
        return NO_ROOM_SECONDS
    # One job's own trouble, such as a volume that is full, must not keep the engine busy.
    return min(NOT_READY_SECONDS * 2.0 ** min(after.tries - 1, 10), MAX_PAUSE_SECONDS)


_STOPS_NOTHING = frozenset({Event.STOP_DONE, Event.STOP_FAILED, Event.LIFE_SPAN})
_STARTS_AT_ONCE = frozenset({Event.SUBMITTED, Event.TAKEN_OVER})
_STARTS_AFTER_WRITE = frozenset({Event.PLACED, Event.ALARM, Event.ABSENT})


def _effects(before: JobRecord, after: JobRecord, event: Event) -> Iterator[Effect]:
    if after.phase is Phase.OVER:
        yield Free()
    if _is_news(before, after):
        yield Write()
    if after.phase is Phase.STARTING and event in _STARTS_AT_ONCE | _STARTS_AFTER_WRITE:
        yield Start(after.run, after_write=event in _STARTS_AFTER_WRITE)
    if after.stops != before.stops:
        yield Stop(after.stops)
    if after.run != before.run:
        yield RunIsOver()
    if after.wake_at != before.wake_at:
        yield Timer(after.wake_at)


def _is_news(before: JobRecord, after: JobRecord) -> bool:
    """Whether any of what is kept, and shown, is another."""
    return (
        after.transitions is not before.transitions
        or after.stop_reason != before.stop_reason
        or after.max_run_time_minutes != before.max_run_time_minutes
        or (after.node, after.gpus) != (before.node, before.gpus)
    )
