"""Whose turn it is: bakes of one project and concurrency group run one after the other.

In the order in which their attempts were made; an attempt that was told that it is its turn never
has another put before it. The line is in the database: every server sees the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)

from neuro.domain.bakes import Attempt, Bake
from neuro.server.database.schema import Sequence, metadata
from neuro.server.projects.tables import projects

turns = Table(
    "flow_turns",
    metadata,
    # The order of the line.
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column(
        "attempt_id",
        ForeignKey("flow_attempts.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
    Column("bake_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    # A digest of the group's name, which may be longer than an index can hold.
    Column("place", String(64), nullable=False),
    Column("cancels", Boolean, nullable=False),
    Index(None, "project_id", "place", "sequence"),
)


@dataclass(frozen=True)
class Turn:
    """An unfinished attempt of a group. ``cancels``: it ends those before it."""

    attempt_id: str
    bake_id: str
    cancels: bool = False


def enter(connection: Connection, bake: Bake, attempt: Attempt) -> None:
    """Take a place at the end of the line, where the bake has one and the attempt goes on.

    Nothing changes for an attempt that is there.
    """
    concurrency = bake.meta.concurrency
    if concurrency is None or attempt.result.is_finished:
        return
    # One after the other: a place that is told as the first one must not get another before it.
    statement = select(projects.c.id).where(projects.c.id == bake.project_id)
    connection.execute(statement.with_for_update(key_share=True)).all()
    if connection.execute(_OWN, {"b_id": attempt.id}).first() is None:
        connection.execute(
            insert(turns),
            {
                "attempt_id": attempt.id,
                "bake_id": bake.id,
                "project_id": bake.project_id,
                "place": hashlib.sha256(concurrency.group.encode()).hexdigest(),
                "cancels": concurrency.cancel_running,
            },
        )


def leave(connection: Connection, attempt_id: str) -> None:
    """Give up a place."""
    connection.execute(_LEAVE, {"b_id": attempt_id})


def ahead(connection: Connection, attempt_id: str) -> list[Turn] | None:
    """Those that come before an attempt, in their order; None for one that has no place.

    Never those of its own bake.
    """
    if connection.execute(_OWN, {"b_id": attempt_id}).first() is None:
        return None
    rows = connection.execute(_AHEAD, {"b_id": attempt_id})
    return [Turn(row.attempt_id, row.bake_id, row.cancels) for row in rows]


_OWN = select(turns).where(turns.c.attempt_id == bindparam("b_id"))
_LEAVE = delete(turns).where(turns.c.attempt_id == bindparam("b_id"))
_own = turns.alias()
_AHEAD = (
    select(turns)
    .join(
        _own,
        (_own.c.project_id == turns.c.project_id)
        & (_own.c.place == turns.c.place)
        & (_own.c.sequence > turns.c.sequence)
        & (_own.c.bake_id != turns.c.bake_id),
    )
    .where(_own.c.attempt_id == bindparam("b_id"))
    .order_by(turns.c.sequence)
)
