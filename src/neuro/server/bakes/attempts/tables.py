"""The table of attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    select,
    update,
)

from neuro.domain.bakes import Attempt, ConfigsMeta, TaskStatus
from neuro.domain.flows import Project
from neuro.server.bakes.tables import bakes
from neuro.server.database.blobs import pack, unpack
from neuro.server.database.damage import Listed, moment, reads, sound, sound_or_none
from neuro.server.database.schema import Blob, Moment, metadata
from neuro.server.projects.tables import project_of_row, projects

# A bake can have more attempts than clients make, each with a megabyte of names.
_LOOKED_AT = 100
_OPEN = [status.value for status in TaskStatus if not status.is_finished]

attempts = Table(
    "flow_attempts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("bake_id", ForeignKey("flow_bakes.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("result", String(16), nullable=False),
    Column("executor_id", String(255), nullable=True),
    Column("message", Text, nullable=True),
    Column("configs", Blob, nullable=False),
    # Of the main jobs that died, for the supervision: packed ``Deaths``.
    Column("deaths", Blob, nullable=True),
    UniqueConstraint("bake_id", "number"),
    Index(None, "result"),
)


def add_attempt(connection: Connection, attempt: Attempt) -> None:
    """Add an attempt. Raises IntegrityError for a number that is taken, or without its bake."""
    connection.execute(
        insert(attempts),
        {
            "id": attempt.id,
            "bake_id": attempt.bake_id,
            "number": attempt.number,
            "created_at": attempt.created_at,
            "result": attempt.result.value,
            "executor_id": attempt.executor_id,
            "message": attempt.message,
            "configs": pack(attempt.configs_meta),
        },
    )


def change_attempt(connection: Connection, attempt: Attempt) -> None:
    """Write what can change of an attempt."""
    connection.execute(
        update(attempts)
        .where(attempts.c.id == attempt.id)
        .values(
            result=attempt.result.value, executor_id=attempt.executor_id, message=attempt.message
        )
    )


def deaths_of(connection: Connection, attempt_id: str) -> bytes | None:
    """What the supervision keeps of the main jobs that died."""
    return connection.execute(
        select(attempts.c.deaths).where(attempts.c.id == attempt_id)
    ).scalar_one_or_none()


def keep_deaths(connection: Connection, attempt_id: str, deaths: bytes) -> None:
    """Keep that."""
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(deaths=deaths))


_BY_ID = select(attempts).where(attempts.c.id == bindparam("b_id"))
_LOCKED_BY_ID = _BY_ID.with_for_update()
_PROJECT_OF = (
    select(projects)
    .join(bakes, bakes.c.project_id == projects.c.id)
    .join(attempts, attempts.c.bake_id == bakes.c.id)
    .where(attempts.c.id == bindparam("b_id"))
)


def get_attempt(connection: Connection, attempt_id: str, *, locked: bool = False) -> Attempt | None:
    """An attempt; ``locked`` holds it until the transaction ends."""
    statement = _LOCKED_BY_ID if locked else _BY_ID
    row = connection.execute(statement, {"b_id": attempt_id}).one_or_none()
    return None if row is None else _attempt(row)


def project_of(connection: Connection, attempt_id: str) -> Project | None:
    """The project of an attempt, also where it or its bake cannot be read."""
    row = connection.execute(_PROJECT_OF, {"b_id": attempt_id}).one_or_none()
    return None if row is None else project_of_row(row)


def by_number(connection: Connection, bake_id: str, number: int) -> Attempt | None:
    """The attempt of a number; -1 is the last one."""
    statement = select(attempts).where(attempts.c.bake_id == bake_id)
    if number == -1:
        statement = statement.order_by(attempts.c.number.desc()).limit(1)
    else:
        statement = statement.where(attempts.c.number == number)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _attempt(row)


def has_configs(connection: Connection, bake_id: str, configs: ConfigsMeta) -> bool:
    """Whether one of the newest attempts of a bake is read from these files."""
    rows = connection.execute(
        select(attempts)
        .where(attempts.c.bake_id == bake_id)
        .order_by(attempts.c.number.desc())
        .limit(_LOOKED_AT)
    )
    return any(attempt.configs_meta == configs for attempt in sound(rows, _attempt))


def list_attempts(
    connection: Connection, bake_id: str, *, page: int, after: Listed[int, Attempt] | None
) -> list[Listed[int, Attempt]]:
    """At most ``page`` attempts of a bake by number, behind ``after``."""
    statement = select(attempts).where(attempts.c.bake_id == bake_id)
    statement = statement.order_by(attempts.c.number).limit(page)
    if after is not None:
        statement = statement.where(attempts.c.number > after.place)
    rows = connection.execute(statement)
    return [Listed(row.number, sound_or_none(row, _attempt)) for row in rows]


def last_of(connection: Connection, bake_ids: Sequence[str]) -> dict[str, Attempt]:
    """The last attempts of bakes, by bake; damaged ones are left out."""
    newest = (
        select(attempts.c.bake_id, func.max(attempts.c.number).label("number"))
        .where(attempts.c.bake_id.in_(bake_ids))
        .group_by(attempts.c.bake_id)
        .subquery()
    )
    same = (attempts.c.bake_id == newest.c.bake_id) & (attempts.c.number == newest.c.number)
    rows = connection.execute(select(attempts).join(newest, same))
    return {attempt.bake_id: attempt for attempt in sound(rows, _attempt)}


def unfinished(connection: Connection) -> list[Attempt]:
    """Every attempt that has no final result, oldest first; damaged ones are left out."""
    rows = connection.execute(
        select(attempts).where(attempts.c.result.in_(_OPEN)).order_by(attempts.c.created_at)
    )
    # The server looks after all of them from its start: one must not keep it from that.
    return list(sound(rows, _attempt))


def end_unbegun(connection: Connection, before: datetime, now: datetime) -> None:
    """Let bakes end that were made before a moment, and never had an attempt."""
    begun = select(attempts.c.id).where(attempts.c.bake_id == bakes.c.id).exists()
    connection.execute(
        update(bakes)
        .where(bakes.c.finished_at.is_(None), bakes.c.created_at < before, ~begun)
        .values(status=TaskStatus.CANCELLED.value, finished_at=now)
    )


def unfinished_of_project(connection: Connection, project_id: str) -> list[Attempt]:
    """A project's attempts that have no final result; damaged ones are left out."""
    rows = connection.execute(
        select(attempts)
        .join(bakes, bakes.c.id == attempts.c.bake_id)
        .where(bakes.c.project_id == project_id, attempts.c.result.in_(_OPEN))
    )
    return list(sound(rows, _attempt))


def unfinished_of_owners(connection: Connection, owners: Collection[str]) -> list[str]:
    """The ids of attempts without a final result whose bakes are these people's."""
    rows = connection.execute(
        select(attempts.c.id)
        .join(bakes, bakes.c.id == attempts.c.bake_id)
        .where(bakes.c.owner.in_(owners), attempts.c.result.in_(_OPEN))
    )
    return list(rows.scalars())


@reads("attempt")
def _attempt(row: Any) -> Attempt:
    return Attempt(
        id=row.id,
        bake_id=row.bake_id,
        number=row.number,
        created_at=moment(row.created_at),
        result=TaskStatus(row.result),
        configs_meta=unpack(row.configs, ConfigsMeta),
        executor_id=row.executor_id,
        message=row.message,
    )
