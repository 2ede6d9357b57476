"""What the supervision reads and writes of attempts; functions of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from neuro.domain.bakes import Attempt, Bake, TaskStatus, TaskTransition
from neuro.domain.errors import Damaged
from neuro.domain.flows import Project
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.bakes.attempts import turns
from neuro.server.bakes.tasks import tables as task_tables
from neuro.server.bakes.tasks.tables import open_tasks_of, tasks
from neuro.server.database.blobs import pack, unpack
from neuro.server.jobs.lookups import active_tags
from neuro.server.projects import tables as flows
from neuro.server.projects.guard import is_id
from neuro.server.supervision import main_jobs

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


class Deaths(msgspec.Struct, frozen=True):
    """How many main jobs have died since a task changed; ``job`` is the last that was counted."""

    job: str
    count: int
    progress: Progress


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


def to_watch(connection: Connection) -> list[tuple[Attempt, Bake]]:
    """The attempts that a server which takes over has to look after, oldest first.

    Every attempt that is not over, and the last ones of bakes that have active jobs. Damaged
    records are left out.
    """
    found = {attempt.id: attempt for attempt in attempts.unfinished(connection)}
    prefix = main_jobs.tag_of("")
    ids = sorted(tag.removeprefix(prefix) for tag in active_tags(connection, prefix))
    for start in range(0, len(ids), _PAGE):
        for attempt in attempts.last_of(connection, ids[start : start + _PAGE]).values():
            found.setdefault(attempt.id, attempt)
    pairs = ((attempt, _bake_of(connection, attempt)) for attempt in found.values())
    known = [(attempt, bake) for attempt, bake in pairs if bake is not None]
    return sorted(known, key=lambda pair: (pair[0].created_at, pair[0].id))


def gone_with_jobs(connection: Connection) -> set[str]:
    """The ids of bakes that were removed, and have active jobs."""
    prefix = main_jobs.tag_of("")
    # Before the bakes are: each is there before its jobs are.
    named = (tag.removeprefix(prefix) for tag in active_tags(connection, prefix))
    return gone(connection, [bake_id for bake_id in named if is_id("bake", bake_id)])


def gone(connection: Connection, bake_ids: Sequence[str]) -> set[str]:
    """Those that were removed; a damaged one is there."""
    left = set(bake_ids)
    for start in range(0, len(bake_ids), _PAGE):
        found = select(bakes.bakes.c.id).where(
            bakes.bakes.c.id.in_(bake_ids[start : start + _PAGE])
        )
        left.difference_update(connection.execute(found).scalars())
    return left


def enter_lines(connection: Connection, found: Sequence[tuple[Attempt, Bake]]) -> None:
    """Give a place to each that waits for others of its group and has none, in this order."""
    for attempt, bake in found:
        turns.enter(connection, bake, attempt)


def _bake_of(connection: Connection, attempt: Attempt) -> Bake | None:
    with suppress(Damaged):
        return bakes.brief_bake(connection, attempt.bake_id)
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


def count_death(connection: Connection, attempt: Attempt) -> int:
    """Note that the main job of an attempt has died; returns how many did without any progress.

    Each job is counted once, also where another server has counted it.
    """
    job = attempt.executor_id or ""
    blob = attempts.deaths_of(connection, attempt.id)
    known = None if blob is None else unpack(blob, Deaths)
    if known is not None and known.job == job:
        return known.count
    now = progress(connection, attempt.id)
    # A record written without a change is not progress, or restarts would never end.
    count = known.count + 1 if known is not None and known.progress == now else 1
    attempts.keep_deaths(connection, attempt.id, pack(Deaths(job, count, now)))
    return count


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
