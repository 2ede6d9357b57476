"""The table of intents, and its queries: see ``intents``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import Column, Connection, Index, String, Table, Text, delete, insert, select, text

from neuro.domain.jobs import Reason
from neuro.server.database.schema import Moment, metadata
from neuro.server.database.schema import Sequence as Counter
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.jobs import tables
from neuro.server.jobs.lookups import Whose
from neuro.server.jobs.record import JobRecord

_PAGE = 500
STOP = "stop"
LIFE_SPAN = "life_span"
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:job, 0))")

# What a server asks of the one that has a job's engine; removed when that is done.
intents = Table(
    "intents",
    metadata,
    Column("sequence", Counter, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("value", Text, nullable=True),
    Column("at", Moment, nullable=False),
    Index(None, "job_id"),
)


class Intent(NamedTuple):
    """What somebody asks of a job: to end for a reason, or to live for so many minutes."""

    job_id: str
    kind: str
    value: str

    @classmethod
    def stop(cls, record: JobRecord | Whose, reason: Reason) -> Intent:
        return cls(record.id, STOP, reason.value)

    @classmethod
    def life_span(cls, record: JobRecord, minutes: int) -> Intent:
        return cls(record.id, LIFE_SPAN, str(minutes))


def stops_asked(connection: Connection, job_ids: Sequence[str]) -> dict[str, str]:
    """Of these jobs the ones that are asked to end, and have not been yet, with the reasons."""
    rows = read(connection, job_ids)
    return {intent.job_id: intent.value for _, intent in reversed(rows) if intent.kind == STOP}


def add(asked: Collection[Intent], connection: Connection) -> None:
    """Keep what is asked, and tell the other servers."""
    # What is asked again adds no row, however often that is while nobody has the engine. Of stops
    # the first stays, as its reason does; of life spans the last.
    stops = list({intent.job_id for intent in asked if intent.kind == STOP})
    known: set[str] = set()
    for start in range(0, len(stops), _PAGE):
        some = intents.c.job_id.in_(stops[start : start + _PAGE])
        found = select(intents.c.job_id).where(some, intents.c.kind == STOP)
        known.update(connection.execute(found).scalars())
    now = datetime.now(UTC)
    rows = []
    for intent in asked:
        if intent.kind == STOP and intent.job_id in known:
            continue
        if intent.kind != STOP:
            same = (intents.c.job_id == intent.job_id) & (intents.c.kind == intent.kind)
            connection.execute(delete(intents).where(same))
        rows.append({**intent._asdict(), "at": now})
    if rows:
        connection.execute(insert(intents), rows)
    tell_others(connection, Topic.INTENT, list(dict.fromkeys(intent.job_id for intent in asked)))


def add_life_span(
    record: JobRecord, reckon: Callable[[JobRecord], int], connection: Connection
) -> int:
    """Keep that a job is to live for the minutes that ``reckon`` makes of its newest record.

    Returns them. Raises what ``reckon`` raises.
    """
    if connection.dialect.name == "postgresql":
        # One after the other, or of two who add minutes one adds nothing. Whoever has the engine
        # is not kept waiting by this, also where this server is frozen now.
        connection.execute(_LOCK, {"job": record.id})
    # In this order: a intent is removed after its record is written.
    same = (intents.c.job_id == record.id) & (intents.c.kind == LIFE_SPAN)
    asked = select(intents.c.value).where(same).order_by(intents.c.sequence.desc()).limit(1)
    pending = connection.execute(asked).scalar()
    newest = tables.get_job(connection, record.id) or record
    if pending is not None:
        newest = replace(newest, max_run_time_minutes=int(pending))
    minutes = reckon(newest)
    add([Intent.life_span(record, minutes)], connection)
    return minutes


def read(connection: Connection, job_ids: Sequence[str] | None) -> list[tuple[int, Intent]]:
    """What is asked of these jobs, None: of any, with the numbers of the rows; oldest first."""
    statement = select(intents).order_by(intents.c.sequence)
    found = []
    for start in range(0, 1 if job_ids is None else len(job_ids), _PAGE):
        page = statement
        if job_ids is not None:
            page = statement.where(intents.c.job_id.in_(job_ids[start : start + _PAGE]))
        for row in connection.execute(page):
            found.append((row.sequence, Intent(row.job_id, row.kind, row.value)))
    return found


def remove(sequences: Sequence[int], connection: Connection) -> None:
    """Forget what was asked in these rows."""
    for start in range(0, len(sequences), _PAGE):
        some = sequences[start : start + _PAGE]
        connection.execute(delete(intents).where(intents.c.sequence.in_(some)))
