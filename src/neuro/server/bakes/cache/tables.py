"""The table of cache entries."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    UniqueConstraint,
    delete,
    select,
)

from neuro.domain.bakes import CacheEntry
from neuro.server.database.blobs import unpack
from neuro.server.database.damage import moment, reads, sound_or_none
from neuro.server.database.schema import Blob, Moment, metadata, upsert

entries = Table(
    "flow_cache_entries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", ForeignKey("flow_projects.id", ondelete="CASCADE"), nullable=False),
    Column("batch", String(255), nullable=False),
    Column("task_id", String(1024), nullable=False),
    Column("key", String(255), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("raw_id", String(255), nullable=False),
    Column("outputs", Blob, nullable=False),
    Column("state", Blob, nullable=False),
    UniqueConstraint("project_id", "batch", "task_id", "key"),
    Index(None, "created_at"),
)


class Packed(NamedTuple):
    """The outputs and the state of an entry as they are written."""

    outputs: bytes
    state: bytes


def put_entry(connection: Connection, entry: CacheEntry, packed: Packed) -> CacheEntry:
    """Add an entry, or write over the one of the same key, which keeps its id.

    ``packed`` is made before the transaction: of large outputs that is slow. Raises IntegrityError
    without its project.
    """
    insertion = upsert(connection, entries)
    statement = (
        insertion.values(
            id=entry.id,
            project_id=entry.project_id,
            batch=entry.batch,
            task_id=entry.task_id,
            key=entry.key,
            created_at=entry.created_at,
            raw_id=entry.raw_id,
            outputs=packed.outputs,
            state=packed.state,
        )
        .on_conflict_do_update(
            index_elements=["project_id", "batch", "task_id", "key"],
            set_={
                name: insertion.excluded[name]
                for name in ("created_at", "raw_id", "outputs", "state")
            },
        )
        .returning(entries.c.id)
    )
    return msgspec.structs.replace(entry, id=connection.execute(statement).scalar_one())


def get_entry(connection: Connection, entry_id: str) -> CacheEntry | None:
    row = connection.execute(select(entries).where(entries.c.id == entry_id)).one_or_none()
    return None if row is None else _entry(row)


def by_key(
    connection: Connection, project_id: str, batch: str, task_id: str, key: str
) -> CacheEntry | None:
    """The entry under a key; none for a damaged one, which the next outcome takes the place of."""
    row = connection.execute(
        select(entries).where(
            entries.c.project_id == project_id,
            entries.c.batch == batch,
            entries.c.task_id == task_id,
            entries.c.key == key,
        )
    ).one_or_none()
    return None if row is None else sound_or_none(row, _entry)


def remove_entries(
    connection: Connection, project_id: str, batch: str | None, task_id: str | None
) -> None:
    """Remove a project's entries that meet every condition."""
    statement = delete(entries).where(entries.c.project_id == project_id)
    if batch is not None:
        statement = statement.where(entries.c.batch == batch)
    if task_id is not None:
        statement = statement.where(entries.c.task_id == task_id)
    connection.execute(statement)


def remove_older(connection: Connection, moment: datetime, limit: int) -> int:
    """Remove at most so many entries made before a moment, oldest first; returns how many went."""
    oldest = (
        select(entries.c.id)
        .where(entries.c.created_at < moment)
        .order_by(entries.c.created_at)
        .limit(limit)
    )
    # Asked again of each: it may have been written anew meanwhile.
    result = connection.execute(
        delete(entries).where(entries.c.id.in_(oldest), entries.c.created_at < moment)
    )
    return result.rowcount


@reads("cache entry")
def _entry(row: Any) -> CacheEntry:
    return CacheEntry(
        id=row.id,
        project_id=row.project_id,
        batch=row.batch,
        task_id=row.task_id,
        key=row.key,
        created_at=moment(row.created_at),
        raw_id=row.raw_id,
        outputs=unpack(row.outputs, dict[str, str]),
        state=unpack(row.state, dict[str, str]),
    )
