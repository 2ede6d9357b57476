"""Look-ups of jobs that read no record: ids, counts and tags, mostly of those that are not over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, or_, select

from neuro.domain.jobs import JobStatus
from neuro.server.jobs.tables import IS_ACTIVE, job_tags, jobs

_PAGE = 500


class Whose(NamedTuple):
    """What is asked of a caller's grants before they are told of a job."""

    cluster: str
    owner: str
    id: str
    name: str | None


_WHOSE = select(jobs.c.cluster, jobs.c.owner, jobs.c.id, jobs.c.name)


def whose(connection: Connection, job_id: str) -> Whose | None:
    """Whose a job is, also where the rest of its record cannot be read."""
    row = connection.execute(_WHOSE.where(jobs.c.id == job_id)).one_or_none()
    return None if row is None else Whose(*row)


def whose_newest(connection: Connection, owner: str, name: str) -> Whose | None:
    """The same of the newest job with this name."""
    named = _WHOSE.where(jobs.c.owner == owner, jobs.c.name == name)
    row = connection.execute(named.order_by(jobs.c.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else Whose(*row)


def active_id_by_name(connection: Connection, owner: str, name: str) -> str | None:
    """The id of the one job of this name that is not over."""
    return connection.execute(
        select(jobs.c.id).where(jobs.c.owner == owner, jobs.c.name == name, IS_ACTIVE)
    ).scalar_one_or_none()


def active_ids(connection: Connection) -> list[str]:
    """The ids of all that are not over, oldest first."""
    statement = select(jobs.c.id).where(IS_ACTIVE).order_by(jobs.c.sequence)
    return list(connection.execute(statement).scalars())


def active_by_engine(connection: Connection) -> dict[str, int]:
    """How many jobs that are not over each engine has."""
    statement = select(jobs.c.engine, func.count()).where(IS_ACTIVE).group_by(jobs.c.engine)
    return {engine: int(count) for engine, count in connection.execute(statement)}


def active_among(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these ids whose jobs are not over."""
    found: set[str] = set()
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE]
        statement = select(jobs.c.id).where(jobs.c.id.in_(some), IS_ACTIVE)
        found.update(connection.execute(statement).scalars())
    return found


def active_with_tags(connection: Connection, tags: Sequence[str]) -> list[str]:
    """The ids of jobs that are not over and have one of these tags."""
    rows = connection.execute(
        select(jobs.c.id)
        .join(job_tags, job_tags.c.sequence == jobs.c.sequence)
        .where(job_tags.c.tag.in_(tags), IS_ACTIVE)
        .distinct()
    )
    return list(rows.scalars())


def active_tags(connection: Connection, prefix: str) -> list[str]:
    """The tags that begin so, of jobs that are not over."""
    rows = connection.execute(
        select(job_tags.c.tag)
        .join(jobs, job_tags.c.sequence == jobs.c.sequence)
        .where(job_tags.c.tag.startswith(prefix, autoescape=True), IS_ACTIVE)
        .distinct()
    )
    return list(rows.scalars())


def runs_with_logs(connection: Connection, engine: str) -> list[tuple[str, int]]:
    """(id, run) of every job whose log is still kept; those in a queue never had one."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.run).where(
            jobs.c.engine == engine,
            jobs.c.logs_removed.is_(False),
            or_(jobs.c.placed, jobs.c.status != JobStatus.PENDING.value),
        )
    )
    return [(job_id, run) for job_id, run in rows]


def sequence_of(connection: Connection, job_id: str) -> int | None:
    """Where a job stands in the order of submission."""
    return connection.execute(
        select(jobs.c.sequence).where(jobs.c.id == job_id)
    ).scalar_one_or_none()


def image_was_used(connection: Connection, owner: str, image: str) -> bool:
    """Whether an owner's newest jobs (the last thousand) hold one with this image."""
    newest = (
        select(jobs.c.specification)
        .where(jobs.c.owner == owner)
        .order_by(jobs.c.sequence.desc())
        .limit(1000)
    )
    needle = msgspec.json.encode(image)
    return any(needle in row.specification for row in connection.execute(newest))
