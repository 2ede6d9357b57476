"""The table of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from neuro.domain.bakes import Task, TaskTransition
from neuro.server.database.schema import metadata
from neuro.server.flows.blobs import pack, unpack

tasks = Table(
    "flow_tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("attempt_id", ForeignKey("flow_attempts.id", ondelete="CASCADE"), nullable=False),
    Column("yaml_id", String(1024), nullable=False),
    Column("raw_id", String(255), nullable=True),
    Column("statuses", LargeBinary, nullable=False),
    Column("outputs", LargeBinary, nullable=True),
    Column("state", LargeBinary, nullable=True),
    Column("message", Text, nullable=True),
    UniqueConstraint("attempt_id", "yaml_id"),
)

_CHANGING = ("raw_id", "statuses", "outputs", "state", "message")


def add_task(connection: Connection, task: Task) -> None:
    """Add a task. Raises IntegrityError for one that is there, or without its attempt."""
    connection.execute(insert(tasks), _columns(task))


def put_tasks(connection: Connection, new: Sequence[Task]) -> None:
    """Add tasks, or change those of the same attempt and ``yaml_id``, which keep their ids."""
    upsert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(tasks)
    statement = upsert.on_conflict_do_update(
        index_elements=["attempt_id", "yaml_id"],
        set_={name: upsert.excluded[name] for name in _CHANGING},
    )
    connection.execute(statement, [_columns(task) for task in new])


def get_task(connection: Connection, task_id: str) -> Task | None:
    row = connection.execute(select(tasks).where(tasks.c.id == task_id)).one_or_none()
    return None if row is None else _task(row)


def tasks_by_yaml_id(
    connection: Connection, attempt_id: str, yaml_ids: Sequence[str]
) -> dict[str, Task]:
    """Tasks of an attempt, those of these ids that are there."""
    rows = connection.execute(
        select(tasks).where(tasks.c.attempt_id == attempt_id, tasks.c.yaml_id.in_(yaml_ids))
    )
    return {row.yaml_id: _task(row) for row in rows}


def page_of_tasks(
    attempt_id: str, page: int, after: Task | None, connection: Connection
) -> list[Task]:
    """At most ``page`` tasks of an attempt by ``yaml_id``, behind ``after``."""
    statement = select(tasks).where(tasks.c.attempt_id == attempt_id)
    statement = statement.order_by(tasks.c.yaml_id).limit(page)
    if after is not None:
        statement = statement.where(tasks.c.yaml_id > after.yaml_id)
    return [_task(row) for row in connection.execute(statement)]


def open_tasks_of(connection: Connection, attempt_id: str) -> list[Task]:
    """The tasks of an attempt that have begun and not ended."""
    rows = connection.execute(select(tasks).where(tasks.c.attempt_id == attempt_id))
    return [task for task in map(_task, rows) if not task.status.is_finished]


def _columns(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "attempt_id": task.attempt_id,
        "yaml_id": task.yaml_id,
        "raw_id": task.raw_id,
        "statuses": pack(task.statuses),
        "outputs": None if task.outputs is None else pack(task.outputs),
        "state": None if task.state is None else pack(task.state),
        "message": task.message,
    }


def _task(row: Any) -> Task:
    return Task(
        id=row.id,
        attempt_id=row.attempt_id,
        yaml_id=row.yaml_id,
        raw_id=row.raw_id,
        statuses=unpack(row.statuses, list[TaskTransition]),
        outputs=None if row.outputs is None else unpack(row.outputs, dict[str, str]),
        state=None if row.state is None else unpack(row.state, dict[str, str]),
        message=row.message,
    )
