"""Queries of what is kept no longer: which jobs and logs go, and that they went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Function,
    and_,
    delete,
    func,
    select,
    update,
)

from neuro.server.jobs.tables import jobs
from neuro.server.shares import fair_shares


def finished_before(connection: Connection, moment: datetime, limit: int) -> list[str]:
    """Ids of jobs that ended before a moment, oldest first."""
    rows = connection.execute(
        select(jobs.c.id)
        .where(jobs.c.finished_at.is_not(None), jobs.c.finished_at < moment)
        .order_by(jobs.c.sequence)
        .limit(limit)
    )
    return [row.id for row in rows]


def finished_beyond(connection: Connection, keep: int, limit: int) -> list[str]:
    """Ids of finished jobs to remove, so that ``keep`` are left: the oldest of who has the most."""
    finished = jobs.c.finished_at.is_not(None)
    held = _held(connection, func.count(), finished)
    chosen: list[str] = []
    for owner, share in fair_shares(held, keep).items():
        rows = connection.execute(
            select(jobs.c.id)
            .where(finished, jobs.c.owner == owner)
            .order_by(jobs.c.sequence)
            .limit(min(held[owner] - share, limit - len(chosen)))
        )
        chosen += rows.scalars()
    return chosen


def logs_beyond(connection: Connection, keep_bytes: int, limit: int) -> list[str]:
    """Ids of finished jobs whose logs go, so that at most ``keep_bytes`` are left.

    The oldest of whoever has the most.
    """
    kept = and_(jobs.c.logs_removed.is_(False), jobs.c.finished_at.is_not(None))
    held = _held(connection, func.sum(jobs.c.log_bytes), kept)
    chosen: list[str] = []
    for owner, share in fair_shares(held, keep_bytes).items():
        excess = held[owner] - share
        if excess <= 0:
            continue
        rows = connection.execute(
            select(jobs.c.id, jobs.c.log_bytes)
            .where(kept, jobs.c.owner == owner)
            .order_by(jobs.c.sequence)
            .limit(limit - len(chosen))
        )
        for row in rows:
            if excess <= 0:
                break
            chosen.append(row.id)
            excess -= row.log_bytes
    return chosen


def engines_of(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The engine of each of these jobs."""
    rows = connection.execute(select(jobs.c.id, jobs.c.engine).where(jobs.c.id.in_(ids)))
    return {row.id: row.engine for row in rows}


def _held(
    connection: Connection, amount: Function[Any], condition: ColumnElement[bool]
) -> dict[str, int]:
    """How much each person has of the jobs that meet a condition."""
    rows = connection.execute(select(jobs.c.owner, amount).where(condition).group_by(jobs.c.owner))
    return {owner: int(held) for owner, held in rows}


def mark_logs_removed(connection: Connection, ids: Sequence[str]) -> None:
    """Note that the logs of these jobs are gone."""
    connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(logs_removed=True))


def delete_jobs(connection: Connection, ids: Sequence[str]) -> None:
    """Forget these jobs, their tags and keys."""
    connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
