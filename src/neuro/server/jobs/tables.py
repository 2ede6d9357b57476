"""The table of jobs: how a record is written to it and read from it. Lists are in `listing`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sys import intern
from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    bindparam,
    insert,
    select,
    text,
    update,
)

from neuro.domain.jobs import ACTIVE, FINISHED, JobStatus, Priority, Transition
from neuro.server.database.damage import moment, moment_or_none, reads, sound, sound_or_none
from neuro.server.database.schema import Blob, Moment, index_among, metadata
from neuro.server.database.schema import Sequence as Counter
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord, Specification

_PAGE = 500
IS_ACTIVE = text("status IN ('pending', 'suspended', 'running')")
_IS_ACTIVE_CONTROL = text("control AND status IN ('pending', 'suspended', 'running')")

jobs = Table(
    "jobs",
    metadata,
    # The order of submission: what lists are sorted and paged by.
    Column("sequence", Counter, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(64), nullable=True),
    Column("cluster", String(255), nullable=False),
    Column("engine", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment, nullable=True),
    Column("finished_at", Moment, nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("stop_reason", String(64), nullable=True),
    Column("max_run_time_minutes", Integer, nullable=True),
    Column("run", Integer, nullable=False),
    Column("placed", Boolean, nullable=False),
    Column("run_started", Boolean, nullable=False),
    Column("logs_removed", Boolean, nullable=False),
    Column("log_bytes", Counter, nullable=False),
    # Names with commas between; none where an earlier version gave them out.
    Column("gpus", String, nullable=True),
    Column("node", String(255), nullable=False, server_default=""),
    # Both are JSON that only the server reads.
    Column("specification", Blob, nullable=False),
    Column("transitions", Blob, nullable=False),
    # What the specification says of it; not of jobs that were over when this column came.
    Column("control", Boolean, nullable=False, server_default=text("false")),
    Index(None, "owner", "sequence"),
    Index(None, "status", "sequence"),
    Index(None, "created_at"),
    Index(None, "finished_at"),
    Index(None, "owner", "name", "sequence"),
    # The rule of one active job per (owner, name) is the database's own.
    index_among("uq_jobs_active_name", "owner", "name", where=IS_ACTIVE, unique=True),
    index_among("ix_jobs_active_control", "owner", where=_IS_ACTIVE_CONTROL),
)

job_tags = Table(
    "job_tags",
    metadata,
    Column("tag", String(256), primary_key=True),
    Column("sequence", Counter, ForeignKey("jobs.sequence", ondelete="CASCADE"), primary_key=True),
    Index(None, "sequence"),
)

# What a client called its submissions, so that one that is repeated makes one job.
job_keys = Table(
    "job_keys",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    # Of the whole request: another one under the same key is a mistake.
    Column("digest", String(64), nullable=False),
    Column("sequence", Counter, ForeignKey("jobs.sequence", ondelete="CASCADE"), nullable=False),
    Index(None, "sequence"),
)

_encode = msgspec.json.Encoder().encode
_decode_specification = msgspec.json.Decoder(Specification).decode
_decode_transitions = msgspec.json.Decoder(tuple[Transition, ...]).decode
_STATUSES = {status.value: status for status in JobStatus}
_PRIORITIES = tuple(sorted(Priority, key=lambda priority: priority.rank))


def insert_job(connection: Connection, record: JobRecord) -> int:
    """Add a job; returns its sequence number. Raises IntegrityError for a taken name."""
    result = connection.execute(_INSERT, {"id": record.id, **_fixed(record), **_changing(record)})
    key = result.inserted_primary_key
    assert key is not None
    sequence = int(key[0])
    tags = record.specification.tags
    if tags:
        connection.execute(
            insert(job_tags), [{"tag": tag, "sequence": sequence} for tag in sorted(set(tags))]
        )
    return sequence


def insert_key(connection: Connection, owner: str, key: str, digest: str, sequence: int) -> None:
    """Keep what a submission was called. Raises IntegrityError for a key that is taken."""
    connection.execute(
        _INSERT_KEY, {"owner": owner, "key": key, "digest": digest, "sequence": sequence}
    )


def job_of_key(connection: Connection, owner: str, key: str) -> tuple[str, JobRecord] | None:
    """What a key stands for: the digest of the request, and the job."""
    called = connection.execute(
        select(job_keys.c.digest, job_keys.c.sequence).where(
            job_keys.c.owner == owner, job_keys.c.key == key
        )
    ).one_or_none()
    if called is None:
        return None
    row = connection.execute(select(jobs).where(jobs.c.sequence == called.sequence)).one()
    return called.digest, record_of_row(row)


def update_jobs(connection: Connection, records: Sequence[JobRecord]) -> None:
    """Write what can change of these jobs."""
    connection.execute(_UPDATE, [{"b_id": record.id, **_changing(record)} for record in records])


def get_job(connection: Connection, job_id: str) -> JobRecord | None:
    row = connection.execute(_BY_ID, {"b_id": job_id}).one_or_none()
    return None if row is None else record_of_row(row)


def newest_by_name(connection: Connection, owner: str, name: str) -> JobRecord | None:
    row = connection.execute(
        select(jobs)
        .where(jobs.c.owner == owner, jobs.c.name == name)
        .order_by(jobs.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else record_of_row(row)


def active_jobs(
    connection: Connection, engine: str | None = None, owners: Collection[str] | None = None
) -> list[JobRecord]:
    """All that are not over, oldest first; those of an engine or of people, if they are given."""
    statement = select(jobs).where(jobs.c.status.in_([status.value for status in ACTIVE]))
    if engine is not None:
        statement = statement.where(jobs.c.engine == engine)
    if owners is not None:
        statement = statement.where(jobs.c.owner.in_(owners))
    # Of PostgreSQL's answer, too, only so many rows are in memory beside their records.
    statement = statement.order_by(jobs.c.sequence).execution_options(yield_per=_PAGE)
    return list(sound(connection.execute(statement), record_of_row))


def active_damaged(connection: Connection, owners: Collection[str]) -> list[str]:
    """The ids of people's jobs that are not over and whose records cannot be read."""
    wanted = jobs.c.owner.in_(owners), jobs.c.status.in_([status.value for status in ACTIVE])
    rows = connection.execute(select(jobs).where(*wanted).execution_options(yield_per=_PAGE))
    return [row.id for row in rows if sound_or_none(row, record_of_row) is None]


def get_jobs(connection: Connection, ids: Sequence[str]) -> list[JobRecord]:
    """Those of these ids that there are, and can be read."""
    return list(sound(connection.execute(select(jobs).where(jobs.c.id.in_(ids))), record_of_row))


def _fixed(record: JobRecord) -> dict[str, Any]:
    return {
        "owner": record.owner,
        "name": record.name,
        "cluster": record.cluster,
        "engine": record.engine,
        "priority": record.priority.rank,
        "created_at": record.created_at,
        # Retention alone changes it, of jobs that are over: no late write takes that back.
        "logs_removed": record.logs_removed,
        "specification": _encode(record.specification),
        "control": record.specification.control,
    }


def _changing(record: JobRecord) -> dict[str, Any]:
    return {
        "status": record.status.value,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "exit_code": record.exit_code,
        "stop_reason": record.stop_reason,
        "max_run_time_minutes": record.max_run_time_minutes,
        "run": record.run,
        "placed": record.placed,
        "run_started": record.run_started,
        "log_bytes": record.log_bytes,
        "gpus": None if record.gpus is None else ",".join(record.gpus),
        "node": record.node,
        "transitions": _encode(record.transitions),
    }


_INSERT = insert(jobs)
_INSERT_KEY = insert(job_keys)
_BY_ID = select(jobs).where(jobs.c.id == bindparam("b_id"))
_CHANGING = [
    "status",
    "started_at",
    "finished_at",
    "exit_code",
    "stop_reason",
    "max_run_time_minutes",
    "run",
    "placed",
    "run_started",
    "log_bytes",
    "gpus",
    "node",
    "transitions",
]
_UPDATE = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values({name: bindparam(name) for name in _CHANGING})
)


def _phase(
    status: JobStatus,
    stop_reason: str | None,
    placed: bool,
    run_started: bool,
    transitions: Sequence[Transition],
) -> Phase:
    """The phase of a job of which nobody is at work. Raises ValueError."""
    if not transitions:
        raise ValueError("it has no steps")  # Each job has one from its submission on.
    if status in FINISHED:
        if transitions[-1].status is not status:
            raise ValueError(f"it is {status}, and its steps do not say so")
        return Phase.OVER
    if stop_reason is not None:
        return Phase.STOPPING if run_started else Phase.RECALLING
    if run_started:
        return Phase.RUNNING
    return Phase.STARTING if placed else Phase.WAITING


@reads("job")
def record_of_row(row: Sequence[Any]) -> JobRecord:
    """A job of its columns, in the order of the table: their names cost more than the rest."""
    (
        sequence,
        job_id,
        owner,
        name,
        cluster,
        engine,
        status,
        priority,
        created_at,
        started_at,
        _finished_at,
        _exit_code,
        stop_reason,
        max_run_time_minutes,
        run,
        placed,
        run_started,
        logs_removed,
        log_bytes,
        gpus,
        node,
        specification,
        steps,
        _control,
    ) = row
    transitions = _decode_transitions(steps)
    return JobRecord(
        id=job_id,
        owner=intern(owner),
        name=name,
        cluster=intern(cluster),
        engine=intern(engine),
        specification=_decode_specification(specification),
        priority=_PRIORITIES[priority],
        created_at=moment(created_at),
        phase=_phase(_status(status), stop_reason, placed, run_started, transitions),
        transitions=transitions,
        max_run_time_minutes=max_run_time_minutes,
        started_at=moment_or_none(started_at),
        stop_reason=stop_reason,
        run=run,
        logs_removed=logs_removed,
        log_bytes=log_bytes,
        node=intern(node),
        gpus=tuple(gpus.split(",")) if gpus else () if gpus is not None else None,
        sequence=sequence,
    )


def _status(word: str) -> JobStatus:
    # Looked up: to call the enumeration takes as long as to decode a step.
    status = _STATUSES.get(word)
    if status is None:
        raise ValueError(f"'{word}' is not a status")
    return status
