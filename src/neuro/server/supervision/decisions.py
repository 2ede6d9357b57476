"""Decides what the server does for an attempt. Pure: facts in, a decision out.

Who drives an attempt is its executor: a main job (a job of the platform), or a process in
somebody's terminal, of which only signs of life are known. A decision is taken anew from the
database whenever something has happened, so one that was lost with the server comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from neuro.domain.bakes import TaskStatus
from neuro.domain.durations import format_duration


class Executor(Enum):
    """Who drives an attempt, as far as known. All but the first speak of a main job.

    ``STRANDED``: the server itself ended it, since it could not find the server any more.
    """

    TERMINAL = auto()
    ALIVE = auto()
    DEAD = auto()
    STRANDED = auto()
    KILLED_BY_USER = auto()
    OUT_OF_TIME = auto()


@dataclass(frozen=True)
class Limits:
    """How patient the supervision is; seconds, all of them.

    ``silence``: how long a terminal's executor of a running attempt may give no sign of life;
    ``local_action``: the same of one that waits for a command on its own machine, as other clients
    do without a sign;
    ``abandoned``: the same of an attempt that was made and never begun; ``grace``: how long one
    that is silent may still end the jobs of a finished attempt by itself. ``pause``: how long a
    main job that died is waited for at first, twice as long each time up to ``longest_pause``;
    after ``deaths`` without a change of any task it is given up.
    """

    silence: float = 120.0
    local_action: float = 3600.0
    abandoned: float = 600.0
    grace: float = 60.0
    pause: float = 1.0
    longest_pause: float = 60.0
    deaths: int = 20

    def pause_after(self, deaths: int) -> float:
        """How long to wait before the main job that replaces the one that died."""
        return min(self.pause * 2.0 ** min(max(0, deaths - 1), 30), self.longest_pause)


@dataclass(frozen=True)
class Facts:
    """The facts about an attempt now.

    ``silent`` is seconds since a sign of life, 0 while one is there all the time; ``dead_for``
    seconds since the main job's end was noticed, ``deaths`` how many ended since a task changed.
    ``is_scheduled``: a schedule made it, so the server itself starts its executor.
    ``is_busy_locally``: a task runs on the terminal's machine.
    """

    result: TaskStatus
    executor: Executor
    silent: float = 0.0
    dead_for: float = 0.0
    deaths: int = 0
    is_scheduled: bool = False
    is_busy_locally: bool = False


@dataclass(frozen=True)
class Wait:
    """Nothing to do, unless something happens or so many seconds have passed."""

    seconds: float | None = None


@dataclass(frozen=True)
class StartMainJob:
    """Submit the job that drives it, the first or the next."""


@dataclass(frozen=True)
class Finish:
    """End the attempt with this result; what is left of it is cleaned up after that."""

    result: TaskStatus
    message: str


@dataclass(frozen=True)
class CleanUp:
    """It is over, and nobody is left who would do it: end its jobs, close its tasks, forget it."""


Decision = Wait | StartMainJob | Finish | CleanUp


def decide(facts: Facts, limits: Limits) -> Decision:
    """What to do for an attempt now."""
    if facts.result.is_finished:
        return _after_the_end(facts, limits)
    if facts.executor is Executor.TERMINAL:
        return _driven_from_a_terminal(facts, limits)
    return _driven_by_a_job(facts, limits)


def _after_the_end(facts: Facts, limits: Limits) -> Decision:
    if facts.executor is Executor.ALIVE:
        # It may run tasks that run always, now or next; its own end comes, and ends this.
        return Wait()
    if facts.executor is Executor.TERMINAL and facts.silent < limits.grace:
        return Wait(limits.grace - facts.silent)
    return CleanUp()


def _driven_from_a_terminal(facts: Facts, limits: Limits) -> Decision:
    if facts.is_scheduled:
        return StartMainJob()
    is_running = facts.result is TaskStatus.RUNNING
    limit = limits.silence if is_running else limits.abandoned
    if facts.is_busy_locally and facts.silent < limits.local_action:
        return Wait(limits.silence)  # That command may end at any time.
    if facts.silent < limit:
        return Wait(limit - facts.silent)
    silence = format_duration(timedelta(seconds=round(facts.silent)))
    if is_running:
        return Finish(
            TaskStatus.FAILED,
            f"Its executor, in a terminal, has been silent for {silence}:"
            " `neuro-flow restart` goes on from there.",
        )
    return Finish(
        TaskStatus.FAILED,
        f"It was not begun for {silence}; the command that submitted it seems to be"
        " gone: `neuro-flow restart` begins it.",
    )


def _driven_by_a_job(facts: Facts, limits: Limits) -> Decision:
    if facts.executor is Executor.ALIVE:
        return Wait()
    if facts.executor is Executor.KILLED_BY_USER:
        return Finish(
            TaskStatus.CANCELLED,
            "Its main job was killed by its user: `neuro-flow restart` goes on from there.",
        )
    if facts.executor is Executor.OUT_OF_TIME:
        return Finish(
            TaskStatus.FAILED,
            "Its life span ended: `neuro-flow restart` goes on from there; give the batch a longer"
            " life_span.",
        )
    if facts.executor is Executor.STRANDED:
        return StartMainJob()
    if facts.deaths >= limits.deaths:
        return Finish(
            TaskStatus.FAILED,
            f"Its main job died {facts.deaths} times without progress: see `neuro logs` of the"
            " last one; `neuro-flow restart` goes on from there.",
        )
    pause = limits.pause_after(facts.deaths)
    if facts.dead_for < pause:
        return Wait(pause - facts.dead_for)
    return StartMainJob()
