"""Reads attempts for the supervision; functions of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from neuro.domain.bakes import Attempt, Bake, TaskStatus, TaskTransition
from neuro.domain.errors import Damaged
from neuro.domain.flows import Project
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.bakes.tasks import tables as task_tables
from neuro.server.bakes.tasks.tables import open_tasks_of, tasks
from neuro.server.database.damage import left_out
from neuro.server.projects import tables as flows

_PAGE = 500
_WITH_THE_BAKE = "It was ended with its bake, whose executor was gone."


@dataclass(frozen=True)
class Known:
    """An attempt with what it belongs to. The bake comes without its graphs."""

    attempt: Attempt
    bake: Bake
    project: Project
    is_last: bool


class Progress(NamedTuple):
    """How far an attempt has come: its tasks, those with a job, the length of all their steps."""

    tasks: int
    jobs: int
    steps: int


def known(connection: Connection, attempt_id: str) -> Known | None:
    """An attempt and what it belongs to; None for one that is gone."""
    attempt = attempts.get_attempt(connection, attempt_id)
    bake = None if attempt is None else bakes.brief_bake(connection, attempt.bake_id)
    if attempt is None or bake is None:
        return None
    project = flows.get_project(connection, bake.project_id)
    last = attempts.by_number(connection, bake.id, -1)
    if project is None or last is None:
        return None
    return Known(attempt, bake, project, is_last=last.id == attempt.id)


def to_watch(connection: Connection, bake_ids: set[str]) -> list[tuple[Attempt, Bake]]:
    """The attempts that a server which starts has to look after, oldest first.

    Every attempt that is not over, and the last ones of these bakes, which have jobs. Damaged
    records are left out.
    """
    found = {attempt.id: attempt for attempt in attempts.unfinished(connection)}
    ids = sorted(bake_ids)
    for start in range(0, len(ids), _PAGE):
        for attempt in attempts.last_of(connection, ids[start : start + _PAGE]).values():
            found.setdefault(attempt.id, attempt)
    pairs = ((attempt, _bake_of(connection, attempt)) for attempt in found.values())
    known = [(attempt, bake) for attempt, bake in pairs if bake is not None]
    return sorted(known, key=lambda pair: (pair[0].created_at, pair[0].id))


def _bake_of(connection: Connection, attempt: Attempt) -> Bake | None:
    try:
        return bakes.brief_bake(connection, attempt.bake_id)
    except Damaged as error:
        left_out(attempt.bake_id, error)
        return None


def progress(connection: Connection, attempt_id: str) -> Progress:
    """How far an attempt has come."""
    row = connection.execute(
        select(
            func.count(),
            func.count(tasks.c.raw_id),
            func.coalesce(func.sum(func.length(tasks.c.statuses)), 0),
        ).where(tasks.c.attempt_id == attempt_id)
    ).one()
    return Progress(int(row[0]), int(row[1]), int(row[2]))


def is_busy_locally(connection: Connection, attempt: Attempt) -> bool:
    """Whether a task of an attempt is open that is neither a job nor a call of other tasks."""
    open_tasks = {task.yaml_id for task in open_tasks_of(connection, attempt.id) if not task.raw_id}
    if not open_tasks:
        return False
    return not open_tasks <= bakes.prefixes_of(connection, attempt.bake_id)


def close_tasks(connection: Connection, attempt_id: str, now: datetime) -> list[str]:
    """Cancel all tasks of an attempt that have begun and not ended; returns their ids."""
    attempts.get_attempt(connection, attempt_id, locked=True)
    found = open_tasks_of(connection, attempt_id)
    step = TaskTransition(created_at=now, status=TaskStatus.CANCELLED)
    task_tables.close_tasks(connection, attempt_id, found, step, _WITH_THE_BAKE)
    return [task.yaml_id for task in found]


def jobs_of_tasks(connection: Connection, attempt_id: str) -> set[str]:
    """The ids of the jobs that the tasks of an attempt name."""
    rows = connection.execute(
        select(tasks.c.raw_id).where(tasks.c.attempt_id == attempt_id, tasks.c.raw_id.is_not(None))
    )
    return set(rows.scalars())
