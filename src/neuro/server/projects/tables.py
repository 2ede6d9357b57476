"""Tables of flows: projects, and the live jobs in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    insert,
    select,
    tuple_,
)

from neuro.domain.flows import LiveJob, Project
from neuro.server.access.grants import Visibility
from neuro.server.database.schema import metadata, upsert

projects = Table(
    "flow_projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("cluster", String(255), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    UniqueConstraint("cluster", "owner", "name"),
)

live_jobs = Table(
    "flow_live_jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", ForeignKey("flow_projects.id", ondelete="CASCADE"), nullable=False),
    Column("yaml_id", String(255), nullable=False),
    Column("multi", Boolean, nullable=False),
    # Separated by blanks, which no tag has.
    Column("tags", Text, nullable=False),
    Column("raw_id", String(255), nullable=False),
    UniqueConstraint("project_id", "yaml_id"),
)


def add_project(connection: Connection, project: Project) -> None:
    """Add a project. Raises IntegrityError for a taken name."""
    connection.execute(
        insert(projects).values(
            id=project.id, cluster=project.cluster, owner=project.owner, name=project.name
        )
    )


_BY_ID = select(projects).where(projects.c.id == bindparam("b_id"))


def get_project(connection: Connection, project_id: str) -> Project | None:
    row = connection.execute(_BY_ID, {"b_id": project_id}).one_or_none()
    return None if row is None else project_of_row(row)


def project_by_name(connection: Connection, cluster: str, owner: str, name: str) -> Project | None:
    row = connection.execute(
        select(projects).where(
            projects.c.cluster == cluster, projects.c.owner == owner, projects.c.name == name
        )
    ).one_or_none()
    return None if row is None else project_of_row(row)


def list_projects(
    connection: Connection,
    cluster: str,
    visible: Visibility,
    *,
    name: str | None,
    owners: Sequence[str],
    page: int,
    after: Project | None,
) -> list[Project]:
    """At most ``page`` projects by owner and name, behind ``after``; no owners mean anybody's."""
    statement = select(projects).where(projects.c.cluster == cluster).limit(page)
    statement = statement.order_by(projects.c.owner, projects.c.name)
    limit_to = visible.condition(projects, connection.dialect.name)
    if limit_to is not None:
        statement = statement.where(limit_to)
    if name is not None:
        statement = statement.where(projects.c.name == name)
    for owner in owners:
        statement = statement.where(projects.c.owner == owner)
    if after is not None:
        place = tuple_(projects.c.owner, projects.c.name)
        statement = statement.where(place > tuple_(after.owner, after.name))
    return [project_of_row(row) for row in connection.execute(statement)]


def remove_project(connection: Connection, project_id: str) -> None:
    """Remove a project with all that is in it; nothing if it is gone."""
    connection.execute(delete(projects).where(projects.c.id == project_id))


def add_live_job(connection: Connection, job: LiveJob) -> None:
    """Add a live job. Raises IntegrityError for one that is there, or a project that is not."""
    connection.execute(insert(live_jobs).values(_columns(job)))


def replace_live_job(connection: Connection, job: LiveJob) -> LiveJob:
    """Add a live job, or change the one of that project and ``yaml_id``, which keeps its id.

    Raises IntegrityError for a project that is not there.
    """
    # One statement, so that two at once cannot both find nothing to change.
    insertion = upsert(connection, live_jobs)
    statement = (
        insertion.values(_columns(job))
        .on_conflict_do_update(
            index_elements=["project_id", "yaml_id"],
            set_={name: insertion.excluded[name] for name in ("multi", "tags", "raw_id")},
        )
        .returning(live_jobs)
    )
    return _live_job(connection.execute(statement).one())


def get_live_job(connection: Connection, live_job_id: str) -> LiveJob | None:
    row = connection.execute(select(live_jobs).where(live_jobs.c.id == live_job_id)).one_or_none()
    return None if row is None else _live_job(row)


def live_job_by_yaml_id(connection: Connection, project_id: str, yaml_id: str) -> LiveJob | None:
    row = connection.execute(
        select(live_jobs).where(
            live_jobs.c.project_id == project_id, live_jobs.c.yaml_id == yaml_id
        )
    ).one_or_none()
    return None if row is None else _live_job(row)


def list_live_jobs(
    connection: Connection, project_id: str, *, page: int, after: LiveJob | None
) -> list[LiveJob]:
    """At most ``page`` live jobs of a project by ``yaml_id``, behind ``after``."""
    statement = select(live_jobs).where(live_jobs.c.project_id == project_id)
    statement = statement.order_by(live_jobs.c.yaml_id).limit(page)
    if after is not None:
        statement = statement.where(live_jobs.c.yaml_id > after.yaml_id)
    return [_live_job(row) for row in connection.execute(statement)]


def project_of_row(row: Any) -> Project:
    """The project that a row of the table of projects tells of."""
    return Project(
        id=row.id, name=row.name, owner=row.owner, cluster=row.cluster, project_name=row.owner
    )


def _columns(job: LiveJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "project_id": job.project_id,
        "yaml_id": job.yaml_id,
        "multi": job.multi,
        "tags": " ".join(job.tags),
        "raw_id": job.raw_id,
    }


def _live_job(row: Any) -> LiveJob:
    return LiveJob(
        id=row.id,
        yaml_id=row.yaml_id,
        project_id=row.project_id,
        multi=row.multi,
        tags=row.tags.split(),
        raw_id=row.raw_id,
    )
