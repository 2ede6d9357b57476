"""The tables of bakes and of their tags.

Graphs can be a thousand times the rest of a bake. The server never looks into those that it keeps:
in bakes that are read they are JSON (``msgspec.Raw``), which only encoding understands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)

from neuro.domain.bakes import Bake, BakeFilter, BakeMeta, Graphs, TaskStatus
from neuro.domain.flows import Project
from neuro.server.database.blobs import pack, unpack, unread
from neuro.server.database.damage import moment, moment_or_none, reads, sound_or_none
from neuro.server.database.schema import Blob, Moment, index_among, metadata
from neuro.server.database.schema import Sequence as Counter
from neuro.server.projects.tables import project_of_row, projects
from neuro.server.shares import fair_shares

_IS_OPEN = text("status IN ('unknown', 'pending', 'running')")

bakes = Table(
    "flow_bakes",
    metadata,
    # The order of submission, for those of the same moment.
    Column("sequence", Counter, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("flow_projects.id", ondelete="CASCADE"), nullable=False),
    Column("batch", String(255), nullable=False),
    Column("name", String(255), nullable=True),
    # The newest attempt's result; a bake without an attempt is pending.
    Column("status", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("graphs", Blob, nullable=False),
    Column("details", Blob, nullable=False),
    # When it last came to its end; none while it has not.
    Column("finished_at", Moment, nullable=True),
    # Who submitted it: in their name it is driven, whoever starts it again.
    Column("owner", String(255), nullable=True),
    Index(None, "project_id", "created_at", "sequence"),
    Index(None, "project_id", "name"),
    Index(None, "finished_at"),
    index_among("uq_flow_bakes_open_name", "project_id", "name", where=_IS_OPEN, unique=True),
)

bake_tags = Table(
    "flow_bake_tags",
    metadata,
    Column("tag", String(255), primary_key=True),
    Column(
        "sequence", Counter, ForeignKey("flow_bakes.sequence", ondelete="CASCADE"), primary_key=True
    ),
    Index(None, "sequence"),
)


class Details(msgspec.Struct, frozen=True):
    """The part of a bake that is stored and never searched."""

    params: dict[str, str]
    tags: list[str]
    meta: BakeMeta


# All but the graphs.
BRIEF = (
    bakes.c.sequence,
    bakes.c.id,
    bakes.c.project_id,
    bakes.c.batch,
    bakes.c.name,
    bakes.c.created_at,
    bakes.c.details,
    bakes.c.owner,
    bakes.c.finished_at,
)


def add_bake(connection: Connection, bake: Bake, graphs: bytes | None = None) -> None:
    """Add a bake; ``graphs`` are its own where they are packed already.

    Raises IntegrityError where one of that name is open, or without its project.
    """
    details = Details(bake.params, bake.tags, bake.meta)
    result = connection.execute(
        insert(bakes),
        {
            "id": bake.id,
            "project_id": bake.project_id,
            "batch": bake.batch,
            "name": bake.name,
            "status": TaskStatus.PENDING.value,
            "created_at": bake.created_at,
            "graphs": pack(bake.graphs) if graphs is None else graphs,
            "details": pack(details),
            "owner": bake.owner,
        },
    )
    key = result.inserted_primary_key
    assert key is not None
    if bake.tags:
        tags = [{"tag": tag, "sequence": int(key[0])} for tag in sorted(set(bake.tags))]
        connection.execute(insert(bake_tags), tags)


def get_bake(connection: Connection, bake_id: str) -> Bake | None:
    row = connection.execute(select(bakes).where(bakes.c.id == bake_id)).one_or_none()
    return None if row is None else _bake(row)


_BRIEF_BY_ID = select(*BRIEF).where(bakes.c.id == bindparam("b_id"))
_PROJECT_OF = (
    select(projects)
    .join(bakes, bakes.c.project_id == projects.c.id)
    .where(bakes.c.id == bindparam("b_id"))
)

_OWNER_OF = (
    select(func.coalesce(bakes.c.owner, projects.c.owner))
    .join(projects, bakes.c.project_id == projects.c.id)
    .where(bakes.c.id == bindparam("b_id"))
)


def brief_bake(connection: Connection, bake_id: str) -> Bake | None:
    """A bake without its graphs."""
    row = connection.execute(_BRIEF_BY_ID, {"b_id": bake_id}).one_or_none()
    return None if row is None else brief(row)


def project_of(connection: Connection, bake_id: str) -> Project | None:
    """The project of a bake, also where the bake itself cannot be read."""
    row = connection.execute(_PROJECT_OF, {"b_id": bake_id}).one_or_none()
    return None if row is None else project_of_row(row)


def owner_of(connection: Connection, bake_id: str) -> str | None:
    """In whose name a bake is driven: its own owner's, or its project's for one of long ago."""
    return connection.execute(_OWNER_OF, {"b_id": bake_id}).scalar_one_or_none()


def prefixes_of(connection: Connection, bake_id: str) -> set[str]:
    """The full ids of a bake's calls: what its graphs are below; none for an unknown bake."""
    graphs = connection.execute(
        select(bakes.c.graphs).where(bakes.c.id == bake_id)
    ).scalar_one_or_none()
    return set() if graphs is None else set(unpack(graphs, dict[str, msgspec.Raw]))


def newest_by_name(connection: Connection, project_id: str, name: str) -> Bake | None:
    row = connection.execute(
        select(bakes)
        .where(bakes.c.project_id == project_id, bakes.c.name == name)
        .order_by(bakes.c.created_at.desc(), bakes.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _bake(row)


def open_by_name(connection: Connection, project_id: str, name: str) -> str | None:
    """The id of the bake of that name that has not ended."""
    return connection.execute(
        select(bakes.c.id).where(bakes.c.project_id == project_id, bakes.c.name == name, _IS_OPEN)
    ).scalar_one_or_none()


@dataclass(frozen=True)
class ListedBake:
    """A bake of a list: its graphs stay packed until its turn comes; None for a damaged one."""

    place: tuple[datetime, int]
    id: str
    bake: Bake | None
    graphs: bytes

    def whole(self) -> Bake | None:
        return sound_or_none(self, _whole)


def list_bakes(
    connection: Connection, query: BakeFilter, *, page: int, after: ListedBake | None
) -> list[ListedBake]:
    """At most ``page`` bakes behind ``after``."""
    place = tuple_(bakes.c.created_at, bakes.c.sequence)
    conditions: list[ColumnElement[bool]] = [bakes.c.project_id == query.project_id]
    if query.name is not None:
        conditions.append(bakes.c.name == query.name)
    if query.since is not None:
        conditions.append(bakes.c.created_at >= query.since)
    if query.until is not None:
        conditions.append(bakes.c.created_at <= query.until)
    for tag in query.tags:
        tagged = select(bake_tags.c.sequence).where(bake_tags.c.tag == tag)
        conditions.append(bakes.c.sequence.in_(tagged))
    statement = select(bakes).limit(page)
    if query.reverse:
        statement = statement.order_by(bakes.c.created_at.desc(), bakes.c.sequence.desc())
    else:
        statement = statement.order_by(bakes.c.created_at, bakes.c.sequence)
    if after is not None:
        # Typed by the columns, as a bare tuple of values would not be.
        behind = tuple_(*after.place, types=[Moment(), Counter])
        conditions.append(place < behind if query.reverse else place > behind)
    rows = connection.execute(statement.where(*conditions))
    return [
        ListedBake((row.created_at, row.sequence), row.id, sound_or_none(row, brief), row.graphs)
        for row in rows
    ]


def change_graphs(connection: Connection, bake_id: str, graphs: bytes) -> None:
    """Write a bake's packed graphs anew."""
    connection.execute(update(bakes).where(bakes.c.id == bake_id).values(graphs=graphs))


def set_status(connection: Connection, bake_id: str, status: TaskStatus) -> None:
    """Mirror the newest attempt's result. Raises IntegrityError where its name is in use."""
    finished_at = datetime.now(UTC) if status.is_finished else None
    connection.execute(
        update(bakes)
        .where(bakes.c.id == bake_id)
        .values(status=status.value, finished_at=finished_at)
    )


def finished_before(connection: Connection, moment: datetime, limit: int) -> list[str]:
    """Ids of bakes that ended before a moment, the oldest end first."""
    rows = connection.execute(
        select(bakes.c.id)
        .where(bakes.c.finished_at < moment)
        .order_by(bakes.c.finished_at, bakes.c.sequence)
        .limit(limit)
    )
    return list(rows.scalars())


def finished_beyond(connection: Connection, keep: int, moment: datetime, limit: int) -> list[str]:
    """Ids of finished bakes to remove, so that ``keep`` are left, the oldest end first.

    They are those of whoever has the most. Those that ended only after ``moment`` are left alone.
    """
    rows = connection.execute(
        select(bakes.c.owner, func.count())
        .where(bakes.c.finished_at.is_not(None))
        .group_by(bakes.c.owner)
    )
    held = {owner: int(count) for owner, count in rows}
    chosen: list[str] = []
    for owner, share in fair_shares(held, keep).items():
        chosen += connection.execute(
            select(bakes.c.id)
            .where(bakes.c.finished_at < moment, bakes.c.owner.is_not_distinct_from(owner))
            .order_by(bakes.c.finished_at, bakes.c.sequence)
            .limit(min(held[owner] - share, limit - len(chosen)))
        ).scalars()
    return chosen


def remove_finished(connection: Connection, bake_id: str) -> bool:
    """Remove a bake with all that hangs on it; False where it goes on again, or is gone."""
    result = connection.execute(
        delete(bakes).where(bakes.c.id == bake_id, bakes.c.finished_at.is_not(None))
    )
    return result.rowcount == 1


def lock(connection: Connection, bake_ids: Iterable[str]) -> None:
    """Hold these bakes until the transaction ends; SQLite has one writer anyway."""
    ids: Sequence[str] = sorted(set(bake_ids))
    statement = select(bakes.c.id).where(bakes.c.id.in_(ids)).order_by(bakes.c.id)
    connection.execute(statement.with_for_update()).all()


def ids_of_project(connection: Connection, project_id: str) -> list[str]:
    rows = connection.execute(select(bakes.c.id).where(bakes.c.project_id == project_id))
    return list(rows.scalars())


@reads("bake")
def brief(row: Any) -> Bake:
    """The bake of a row of ``BRIEF``'s columns."""
    return _make(row, {})


@reads("bake")
def _bake(row: Any) -> Bake:
    return _make(row, cast(Graphs, unread(row.graphs)))


@reads("bake")
def _whole(listed: ListedBake) -> Bake | None:
    if listed.bake is None:
        return None
    return msgspec.structs.replace(listed.bake, graphs=cast(Graphs, unread(listed.graphs)))


def _make(row: Any, graphs: Graphs) -> Bake:
    details = unpack(row.details, Details)
    return Bake(
        id=row.id,
        project_id=row.project_id,
        batch=row.batch,
        created_at=moment(row.created_at),
        graphs=graphs,
        params=details.params,
        name=row.name,
        tags=details.tags,
        meta=details.meta,
        owner=row.owner,
        finished_at=moment_or_none(row.finished_at),
    )
