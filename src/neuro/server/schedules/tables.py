"""The table of schedules, and what finds those that are due."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)

from neuro.domain.bakes import Attempt, CatchUp, Overlap, Schedule, ScheduleRequest
from neuro.server.access.people import is_of
from neuro.server.bakes.attempts.tables import by_number
from neuro.server.database.blobs import unpack
from neuro.server.database.damage import Listed, moment, moment_or_none, reads, sound_or_none
from neuro.server.database.schema import Blob, Moment, metadata
from neuro.server.projects.tables import projects

schedules = Table(
    "flow_schedules",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", ForeignKey("flow_projects.id", ondelete="CASCADE"), nullable=False),
    Column("batch", String(255), nullable=False),
    # Whose rights its bakes have.
    Column("owner", String(64), nullable=False),
    Column("cron", String(255), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("catch_up", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=True),
    Column("last_at", Moment, nullable=True),
    Column("last_bake_id", String(64), nullable=True),
    Column("message", Text, nullable=True),
    # The whole request, packed: what its bakes are made of.
    Column("request", Blob, nullable=False),
    UniqueConstraint("project_id", "batch"),
    Index(None, "next_at"),
)


@dataclass(frozen=True)
class Stored:
    """A schedule with what its bakes are made of."""

    schedule: Schedule
    request: ScheduleRequest


def add(connection: Connection, new: Stored, packed: bytes) -> None:
    """Add a schedule; ``packed`` is its request.

    Raises IntegrityError where its project has one of its batch.
    """
    schedule = new.schedule
    connection.execute(
        insert(schedules),
        {
            "id": schedule.id,
            "project_id": schedule.project_id,
            "batch": schedule.batch,
            "created_at": schedule.created_at,
            **_settings(new.schedule, packed),
        },
    )


def replace(connection: Connection, schedule_id: str, new: Stored, packed: bytes) -> None:
    """Give a schedule other settings; what it did before is kept."""
    connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule_id)
        .values(_settings(new.schedule, packed))
    )


def get(connection: Connection, schedule_id: str) -> Stored | None:
    row = connection.execute(select(schedules).where(schedules.c.id == schedule_id)).one_or_none()
    return None if row is None else _stored(row)


def of_batch(connection: Connection, project_id: str, batch: str) -> tuple[str, str] | None:
    """(id, owner) of the schedule of a batch, which may be damaged otherwise."""
    row = connection.execute(
        select(schedules.c.id, schedules.c.owner).where(
            schedules.c.project_id == project_id, schedules.c.batch == batch
        )
    ).one_or_none()
    return None if row is None else (row.id, row.owner)


def lock_project(connection: Connection, project_id: str) -> None:
    """Hold a project until the transaction ends, so that two at once make one schedule."""
    statement = select(projects.c.id).where(projects.c.id == project_id)
    connection.execute(statement.with_for_update()).all()


def list_schedules(
    connection: Connection, project_id: str, *, page: int, after: Listed[str, Stored] | None
) -> list[Listed[str, Stored]]:
    """At most ``page`` schedules of a project by batch, behind ``after``."""
    statement = select(schedules).where(schedules.c.project_id == project_id)
    statement = statement.order_by(schedules.c.batch).limit(page)
    if after is not None:
        statement = statement.where(schedules.c.batch > after.place)
    rows = connection.execute(statement)
    return [Listed(row.batch, sound_or_none(row, _stored)) for row in rows]


def remove(connection: Connection, schedule_id: str) -> None:
    connection.execute(delete(schedules).where(schedules.c.id == schedule_id))


def remove_all_of(connection: Connection, owners: Collection[str]) -> bool:
    """Remove the schedules of these people; false where they have none."""
    result = connection.execute(delete(schedules).where(schedules.c.owner.in_(owners)))
    return result.rowcount > 0


def count_of(connection: Connection, owner: str) -> int:
    """How many schedules an owner has, with their service accounts."""
    of_person = is_of(schedules.c.owner, owner)
    statement = select(func.count()).select_from(schedules).where(of_person)
    return connection.execute(statement).scalar_one()


def project_of(connection: Connection, schedule_id: str) -> str | None:
    """The project of a schedule, which may be damaged otherwise."""
    project_id: str | None = connection.execute(
        select(schedules.c.project_id).where(schedules.c.id == schedule_id)
    ).scalar_one_or_none()
    return project_id


def owner_of(connection: Connection, schedule_id: str, project_id: str) -> str | None:
    """Whose rights the bakes of a project's schedule have."""
    owner: str | None = connection.execute(
        select(schedules.c.owner).where(
            schedules.c.id == schedule_id, schedules.c.project_id == project_id
        )
    ).scalar_one_or_none()
    return owner


def due(connection: Connection, now: datetime) -> list[str]:
    """The ids of schedules that are due, the longest waiting first."""
    rows = connection.execute(
        select(schedules.c.id).where(schedules.c.next_at <= now).order_by(schedules.c.next_at)
    )
    return list(rows.scalars())


def next_due(connection: Connection) -> datetime | None:
    """When the first of all is due."""
    moment: datetime | None = connection.execute(
        select(schedules.c.next_at)
        .where(schedules.c.next_at.is_not(None))
        .order_by(schedules.c.next_at)
        .limit(1)
    ).scalar_one_or_none()
    return moment


def claim(
    connection: Connection,
    schedule_id: str,
    expected: datetime,
    following: datetime | None,
    message: str | None,
) -> bool:
    """Deal with the times before ``following``; False where somebody else has done so."""
    result = connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule_id, schedules.c.next_at == expected)
        .values(next_at=following, message=message)
    )
    return result.rowcount == 1


def postpone(connection: Connection, schedule_id: str, until: datetime, message: str) -> None:
    """Look at a schedule again at another time."""
    connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule_id)
        .values(next_at=until, message=message)
    )


def started(connection: Connection, schedule_id: str, at: datetime, bake_id: str) -> None:
    """Keep which bake was started last, and for which time."""
    connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule_id)
        .values(last_at=at, last_bake_id=bake_id)
    )


def running(connection: Connection, schedule_id: str) -> Attempt | None:
    """The unfinished attempt of the bake that a schedule started last, if it has one."""
    bake_id = connection.execute(
        select(schedules.c.last_bake_id).where(schedules.c.id == schedule_id)
    ).scalar_one_or_none()
    last = None if bake_id is None else by_number(connection, bake_id, -1)
    return None if last is None or last.result.is_finished else last


def tell(connection: Connection, schedule_id: str, message: str) -> None:
    """Store a message for the people who look at the schedule."""
    connection.execute(
        update(schedules).where(schedules.c.id == schedule_id).values(message=message)
    )


def _settings(schedule: Schedule, packed: bytes) -> dict[str, Any]:
    return {
        "owner": schedule.owner,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap.value,
        "catch_up": schedule.catch_up.value,
        "next_at": schedule.next_at,
        "message": None,
        "request": packed,
    }


@reads("schedule")
def _stored(row: Any) -> Stored:
    request = unpack(row.request, ScheduleRequest)
    schedule = Schedule(
        id=row.id,
        project_id=row.project_id,
        batch=row.batch,
        cron=row.cron,
        timezone=row.timezone,
        overlap=Overlap(row.overlap),
        catch_up=CatchUp(row.catch_up),
        owner=row.owner,
        created_at=moment(row.created_at),
        next_at=moment_or_none(row.next_at),
        last_at=moment_or_none(row.last_at),
        last_bake_id=row.last_bake_id,
        message=row.message,
        params=request.params,
        tags=request.tags,
    )
    return Stored(schedule, request)
