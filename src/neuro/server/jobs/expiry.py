"""Queries of what is kept no longer: which jobs and logs go, and that they went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, delete, func, select, update

from neuro.server.jobs.tables import jobs


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
    """Ids of finished jobs that are not among the ``keep`` newest, oldest first."""
    total = connection.execute(
        select(func.count()).select_from(jobs).where(jobs.c.finished_at.is_not(None))
    ).scalar_one()
    rows = connection.execute(
        select(jobs.c.id)
        .where(jobs.c.finished_at.is_not(None))
        .order_by(jobs.c.sequence)
        .limit(max(0, min(total - keep, limit)))
    )
    return [row.id for row in rows]


def logs_beyond(connection: Connection, keep_bytes: int, limit: int) -> list[str]:
    """Ids of finished jobs whose logs go, oldest first, to keep at most ``keep_bytes``."""
    kept = and_(jobs.c.logs_removed.is_(False), jobs.c.finished_at.is_not(None))
    excess = (
        connection.execute(
            select(func.coalesce(func.sum(jobs.c.log_bytes), 0)).where(kept)
        ).scalar_one()
    ) - keep_bytes
    chosen: list[str] = []
    rows = connection.execute(
        select(jobs.c.id, jobs.c.log_bytes).where(kept).order_by(jobs.c.sequence).limit(limit)
    )
    for row in rows:
        if excess <= 0:
            break
        chosen.append(row.id)
        excess -= row.log_bytes
    return chosen


def mark_logs_removed(connection: Connection, ids: Sequence[str]) -> None:
    """Note that the logs of these jobs are gone."""
    connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(logs_removed=True))


def delete_jobs(connection: Connection, ids: Sequence[str]) -> None:
    """Forget these jobs, their tags and keys."""
    connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
