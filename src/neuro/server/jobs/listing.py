"""Pages of the jobs that a caller may see: exact, and quick however much was shared with them.

Somebody with a few grants has their jobs looked up by an index, one by one. For somebody with
thousands that takes a hundred milliseconds a page, so the jobs are walked in their order instead,
and each is compared with the grants in memory, as long as enough of them are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select

from neuro.domain.jobs import JobFilter
from neuro.domain.names import is_job_id
from neuro.server.access.grants import Visibility
from neuro.server.database.damage import sound
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.tables import job_tags, jobs, record_of_row

# So many owners and single jobs are looked up at once.
FEW = 500
# Jobs that are walked before it is known how many of them are the caller's, and at most at once.
FIRST_STEP = 2000
LONGEST_STEP = 20_000
# To look up one single job takes as long as to walk so many.
WALKED_PER_LOOKUP = 5

_KEYS = select(jobs.c.sequence, jobs.c.owner, jobs.c.id, jobs.c.name)
_BY_SEQUENCE = select(jobs).where(jobs.c.sequence.in_(bindparam("sequences", expanding=True)))


class JobPage(NamedTuple):
    """Some of a list: where the next page begins, None where this was the last.

    A damaged record makes a page shorter, not the last one; ``damaged`` are the ids of those.
    """

    records: list[JobRecord]
    next: int | None
    damaged: list[str]


def list_jobs(
    connection: Connection, visible: Visibility, query: JobFilter, *, page: int, after: int | None
) -> JobPage:
    """One page of at most ``page`` jobs behind the sequence number ``after``."""
    rows, last = list_rows(connection, visible, query, page=page, after=after)
    records = list(sound(rows, record_of_row))
    damaged: list[str] = []
    if len(records) < len(rows):
        read = {record.id for record in records}
        damaged = [row.id for row in rows if row.id not in read]
    return JobPage(records, last, damaged)


def list_rows(
    connection: Connection, visible: Visibility, query: JobFilter, *, page: int, after: int | None
) -> tuple[Sequence[Row[Any]], int | None]:
    """The same as rows of the table."""
    if visible.everything or len(visible.owners) + len(visible.singles) <= FEW:
        return _looked_up(connection, visible, query, page, after)
    found, after, is_whole = _walk(connection, visible, query, page, after)
    rows = _rows(connection, query, found)
    if is_whole:
        return rows, after
    more, last = _looked_up(connection, visible, query, page - len(found), after)
    return [*rows, *more], last


def _looked_up(
    connection: Connection, visible: Visibility, query: JobFilter, page: int, after: int | None
) -> tuple[Sequence[Row[Any]], int | None]:
    statement = select(jobs).where(*_conditions(query))
    limit_to = visible.condition(jobs, connection.dialect.name, is_id=is_job_id)
    if limit_to is not None:
        statement = statement.where(limit_to)
    rows = connection.execute(_behind(statement, query, after).limit(page)).all()
    return rows, rows[-1].sequence if len(rows) == page else None


def _walk(
    connection: Connection, visible: Visibility, query: JobFilter, page: int, after: int | None
) -> tuple[list[int], int | None, bool]:
    """The sequence numbers of a page's jobs, where what is behind them begins, and whether these
    are all of the page: else too few of the jobs here are the caller's, and the rest is looked up.
    """
    statement = _KEYS.where(*_conditions(query))
    affordable = WALKED_PER_LOOKUP * (len(visible.owners) + len(visible.singles))
    found: list[int] = []
    walked, step = 0, FIRST_STEP
    while True:
        rows = connection.execute(_behind(statement, query, after).limit(step)).all()
        for sequence, owner, job_id, name in rows:
            if visible.shows(owner, job_id, name):
                found.append(sequence)
                if len(found) == page:
                    return found, sequence, True
        if len(rows) < step:
            return found, None, True
        after = rows[-1].sequence
        walked += len(rows)
        ahead = (page - len(found)) * walked // max(1, len(found))
        if ahead > affordable:
            return found, after, False
        step = min(ahead + FIRST_STEP // 4, LONGEST_STEP)


def _rows(connection: Connection, query: JobFilter, sequences: list[int]) -> Sequence[Row[Any]]:
    if not sequences:
        return []
    statement = _behind(_BY_SEQUENCE, query, None)
    return connection.execute(statement, {"sequences": sequences}).all()


def _behind(statement: Select[Any], query: JobFilter, after: int | None) -> Select[Any]:
    """In the order of a list, from where it goes on."""
    sequence = jobs.c.sequence
    if query.reverse:
        statement = statement.order_by(sequence.desc())
        return statement if after is None else statement.where(sequence < after)
    statement = statement.order_by(sequence)
    return statement if after is None else statement.where(sequence > after)


def _conditions(query: JobFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.status:
        conditions.append(jobs.c.status.in_([status.value for status in query.status]))
    if query.name is not None:
        conditions.append(jobs.c.name == query.name)
    if query.owner:
        conditions.append(jobs.c.owner.in_(query.owner))
    if query.project_name:
        conditions.append(jobs.c.owner.in_(query.project_name))
    if query.cluster_name is not None:
        conditions.append(jobs.c.cluster == query.cluster_name)
    if query.since is not None:
        conditions.append(jobs.c.created_at >= query.since)
    if query.until is not None:
        conditions.append(jobs.c.created_at <= query.until)
    # ``logs_removed=False`` is sent by every list of the reference clients; they mean to hide jobs
    # that are being dropped. Here records stay in lists after their logs are gone.
    for tag in query.tag:
        conditions.append(
            jobs.c.sequence.in_(select(job_tags.c.sequence).where(job_tags.c.tag == tag))
        )
    return conditions
