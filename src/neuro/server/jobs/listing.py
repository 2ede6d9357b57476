"""Pages of the jobs that a caller may see: exact, and quick however much was shared with them.

A few grants are looked up, by indexes that know a job's place in the list: only a page's records
are read. With thousands of grants that takes tens of milliseconds a page, so the jobs are walked
in their order instead, and each is compared with the grants in memory, as long as enough of them
are the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    and_,
    any_,
    bindparam,
    case,
    func,
    literal,
    select,
)

from neuro.domain.jobs import JobFilter
from neuro.domain.names import is_job_id
from neuro.server.access.grants import Visibility
from neuro.server.database.damage import sound
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.tables import job_tags, jobs, record_of_row

# With more owners and single jobs the walk comes first.
FEW = 500
# Jobs that are walked before it is known how many of them are the caller's, and at most at once.
FIRST_STEP = 2000
LONGEST_STEP = 20_000
# To look up one single job takes as long as to walk so many.
WALKED_PER_LOOKUP = 2
# Records that are read at once; a statement may have four times as many parameters.
MOST_AT_ONCE = 8000

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
    if visible.everything:
        statement = _behind(select(jobs).where(*_conditions(query)), query, after)
        rows = connection.execute(statement.limit(page)).all()
        return rows, rows[-1].sequence if len(rows) == page else None
    if len(visible.owners) + len(visible.singles) <= FEW:
        return _look_up(connection, visible, query, page, after)
    found, after, is_whole = _walk(connection, visible, query, page, after)
    rows = _rows(connection, query, found)
    if is_whole:
        return rows, after
    more, last = _look_up(connection, visible, query, page - len(found), after)
    return [*rows, *more], last


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


def _look_up(
    connection: Connection, visible: Visibility, query: JobFilter, page: int, after: int | None
) -> tuple[list[Row[Any]], int | None]:
    shared = _Shared.of(visible)
    found: list[Row[Any]] = []
    size = page
    while len(found) < page:
        sequences = _next(connection, shared, query, size, after)
        found += [
            row
            for row in _rows(connection, query, sequences)
            if visible.shows(row.owner, row.id, row.name)
        ]
        if len(sequences) < size and len(found) <= page:
            return found, None
        after = sequences[-1]
        # One round is enough, but for somebody who was given ids below owners that they are not of.
        size = min(2 * size, MOST_AT_ONCE)
    return found[:page], found[page - 1].sequence


class _Shared(NamedTuple):
    """What a list shows, by how it is looked up."""

    ids: list[str]
    # Two, as a condition of both would have all jobs of the owners sorted.
    by_owner: Visibility
    by_name: Visibility

    @classmethod
    def of(cls, visible: Visibility) -> Self:
        # Each once, though it may be given below several owners: the answers are counted.
        ids = sorted({one for _, one in visible.singles if is_job_id(one)})
        names = frozenset(it for it in visible.singles if not is_job_id(it[1]))
        return cls(ids, Visibility(owners=visible.owners), Visibility(singles=names))


def _next(
    connection: Connection, shared: _Shared, query: JobFilter, count: int, after: int | None
) -> list[int]:
    """The sequence numbers of the next ``count`` jobs that may be the caller's, in order.

    An id is found whoever's job it is: its owner is in the job's record only, not in the index.
    """
    dialect = connection.dialect.name
    statements = []
    if shared.ids:
        statements.append(
            (_ids_in_sqlite if dialect == "sqlite" else _ids)(shared.ids, query, after)
        )
    for part in (shared.by_owner, shared.by_name):
        if part.owners or part.singles:
            limit_to = part.condition(jobs, dialect)
            assert limit_to is not None
            statements.append(
                _behind(select(jobs.c.sequence).where(limit_to, *_conditions(query)), query, after)
            )
    found = {
        sequence
        for statement in statements
        for sequence in connection.execute(statement.limit(count)).scalars()
    }
    return sorted(found, reverse=query.reverse)[:count]


def _ids(ids: list[str], query: JobFilter, after: int | None) -> Select[Any]:
    one_of = jobs.c.id == any_(literal(ids, ARRAY(String)))
    # The offset keeps PostgreSQL from going through all jobs in their order instead.
    some = select(jobs.c.sequence).where(one_of, *_conditions(query), *_after(query, after))
    sequence = some.offset(0).subquery().c.sequence
    return select(sequence).order_by(sequence.desc() if query.reverse else sequence)


def _ids_in_sqlite(ids: list[str], query: JobFilter, after: int | None) -> Select[Any]:
    shared = func.json_each(json.dumps(ids)).table_valued("value", name="shared")
    # The case and the sum keep SQLite from using another index than that of ids.
    asked, place = [*_conditions(query), *_after(query, after)], jobs.c.sequence + 0
    return (
        select(jobs.c.sequence)
        .select_from(shared.join(jobs, literal(True)))
        .where(
            jobs.c.id == shared.c.value, *([case((and_(*asked), 1), else_=0) == 1] if asked else [])
        )
        .order_by(place.desc() if query.reverse else place)
    )


def _rows(connection: Connection, query: JobFilter, sequences: list[int]) -> Sequence[Row[Any]]:
    if not sequences:
        return []
    statement = _behind(_BY_SEQUENCE, query, None)
    return connection.execute(statement, {"sequences": sequences}).all()


def _behind(statement: Select[Any], query: JobFilter, after: int | None) -> Select[Any]:
    """In the order of a list, from where it goes on."""
    sequence = jobs.c.sequence
    statement = statement.order_by(sequence.desc() if query.reverse else sequence)
    return statement.where(*_after(query, after))


def _after(query: JobFilter, after: int | None) -> list[ColumnElement[bool]]:
    if after is None:
        return []
    return [jobs.c.sequence < after if query.reverse else jobs.c.sequence > after]


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
