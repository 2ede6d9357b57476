"""The table of tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Insert,
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

from neuro.domain.bakes import Task, TaskStatus, TaskTransition, new_id
from neuro.server.database.blobs import pack, unpack
from neuro.server.database.damage import reads
from neuro.server.database.schema import Blob, metadata, upsert_of

tasks = Table(
    "flow_tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("attempt_id", ForeignKey("flow_attempts.id", ondelete="CASCADE"), nullable=False),
    Column("yaml_id", String(1024), nullable=False),
    Column("raw_id", String(255), nullable=True),
    Column("statuses", Blob, nullable=False),
    Column("outputs", Blob, nullable=True),
    Column("state", Blob, nullable=True),
    Column("message", Text, nullable=True),
    UniqueConstraint("attempt_id", "yaml_id"),
)

# Each may have megabytes of outputs.
_AT_ONCE = 50
_CHANGING = ("raw_id", "statuses", "outputs", "state", "message")

_BY_YAML_ID = select(tasks).where(
    tasks.c.attempt_id == bindparam("b_attempt"),
    tasks.c.yaml_id.in_(bindparam("b_yaml_ids", expanding=True)),
)


# Made once: to build the statement takes longer than to run it.
@cache
def _upsert(dialect: str) -> Insert:
    statement = upsert_of(dialect, tasks)
    return statement.on_conflict_do_update(
        index_elements=["attempt_id", "yaml_id"],
        set_={name: statement.excluded[name] for name in _CHANGING},
    )


Row = dict[str, Any]


class OpenTask(NamedTuple):
    """The record of a task that goes on."""

    yaml_id: str
    raw_id: str | None
    statuses: list[TaskTransition]


def add_task(connection: Connection, row: Row) -> None:
    """Add a task. Raises IntegrityError for one that is there, or without its attempt."""
    connection.execute(insert(tasks), row)


def put_tasks(connection: Connection, rows: Sequence[Row]) -> None:
    """Add tasks, or change those of the same attempt and ``yaml_id``, which keep their ids."""
    connection.execute(_upsert(connection.dialect.name), rows)


def copy_tasks(
    connection: Connection, attempt_id: str, target_id: str, yaml_ids: Sequence[str]
) -> None:
    """Give an attempt the records of another's tasks as they are, under ids of their own."""
    copied = select(
        bindparam("b_id", type_=String),
        bindparam("b_target", type_=String),
        tasks.c.yaml_id,
        *(tasks.c[name] for name in _CHANGING),
    ).where(tasks.c.attempt_id == bindparam("b_source"), tasks.c.yaml_id == bindparam("b_yaml_id"))
    statement = insert(tasks).from_select(["id", "attempt_id", "yaml_id", *_CHANGING], copied)
    values = [
        {
            "b_id": new_id("task"),
            "b_target": target_id,
            "b_source": attempt_id,
            "b_yaml_id": yaml_id,
        }
        for yaml_id in yaml_ids
    ]
    if values:
        connection.execute(statement, values)


def steps_of(
    connection: Connection, attempt_id: str, yaml_ids: Collection[str]
) -> dict[str, list[TaskTransition]]:
    """The steps of an attempt's tasks, of those of these ids that are there."""
    rows = connection.execute(
        select(tasks.c.yaml_id, tasks.c.statuses).where(tasks.c.attempt_id == attempt_id)
    )
    return {row[0]: unpack(row[1], list[TaskTransition]) for row in rows if row[0] in yaml_ids}


def get_task(connection: Connection, task_id: str) -> Task | None:
    row = connection.execute(select(tasks).where(tasks.c.id == task_id)).one_or_none()
    return None if row is None else _task(row)


def tasks_by_yaml_id(
    connection: Connection, attempt_id: str, yaml_ids: Sequence[str]
) -> dict[str, Task]:
    """Tasks of an attempt, those of these ids that are there."""
    rows = connection.execute(_BY_YAML_ID, {"b_attempt": attempt_id, "b_yaml_ids": yaml_ids})
    return {row.yaml_id: _task(row) for row in rows}


class KnownTask(NamedTuple):
    """What a task has, with its outputs and its state as they are stored."""

    id: str
    raw_id: str | None
    statuses: list[TaskTransition]
    outputs: bytes | None
    state: bytes | None
    message: str | None

    @property
    def status(self) -> TaskStatus:
        return self.statuses[-1].status if self.statuses else TaskStatus.UNKNOWN

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished


def known_tasks(
    connection: Connection, attempt_id: str, yaml_ids: Sequence[str]
) -> Iterator[tuple[str, KnownTask | None]]:
    """These ids with what an attempt has of them, in their order; few are held at once."""
    for start in range(0, len(yaml_ids), _AT_ONCE):
        some = yaml_ids[start : start + _AT_ONCE]
        rows = connection.execute(_BY_YAML_ID, {"b_attempt": attempt_id, "b_yaml_ids": some})
        found = {row.yaml_id: _known(row) for row in rows}
        for yaml_id in some:
            yield yaml_id, found.get(yaml_id)


def page_of_tasks(
    attempt_id: str, page: int, after: Task | None, connection: Connection
) -> list[Task]:
    """At most ``page`` tasks of an attempt by ``yaml_id``, behind ``after``."""
    statement = select(tasks).where(tasks.c.attempt_id == attempt_id)
    statement = statement.order_by(tasks.c.yaml_id).limit(page)
    if after is not None:
        statement = statement.where(tasks.c.yaml_id > after.yaml_id)
    return [_task(row) for row in connection.execute(statement)]


def open_tasks_of(connection: Connection, attempt_id: str) -> list[OpenTask]:
    """The tasks of an attempt that have begun and not ended, without what they put out."""
    rows = connection.execute(
        select(tasks.c.yaml_id, tasks.c.raw_id, tasks.c.statuses).where(
            tasks.c.attempt_id == attempt_id
        )
    )
    found = (OpenTask(row[0], row[1], unpack(row[2], list[TaskTransition])) for row in rows)
    return [task for task in found if not task.statuses or not task.statuses[-1].status.is_finished]


def close_tasks(
    connection: Connection,
    attempt_id: str,
    found: Sequence[OpenTask],
    step: TaskTransition,
    message: str,
) -> None:
    """Let these tasks of an attempt end with a last step; a message that they have stays."""
    statement = (
        update(tasks)
        .where(tasks.c.attempt_id == attempt_id, tasks.c.yaml_id == bindparam("b_yaml_id"))
        .values(statuses=bindparam("b_statuses"), message=func.coalesce(tasks.c.message, message))
    )
    values = [
        {"b_yaml_id": task.yaml_id, "b_statuses": pack([*task.statuses, step])} for task in found
    ]
    if values:
        connection.execute(statement, values)


def row_of(task: Task) -> Row:
    """What is written of a task: made before the transaction, as packing large outputs is slow."""
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


@reads("task")
def outcome_of(known: KnownTask) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """The outputs and the state of a task."""
    return _texts(known.outputs), _texts(known.state)


@reads("task")
def _known(row: Any) -> KnownTask:
    statuses = unpack(row.statuses, list[TaskTransition])
    return KnownTask(row.id, row.raw_id, statuses, row.outputs, row.state, row.message)


@reads("task")
def _task(row: Any) -> Task:
    return Task(
        id=row.id,
        attempt_id=row.attempt_id,
        yaml_id=row.yaml_id,
        raw_id=row.raw_id,
        statuses=unpack(row.statuses, list[TaskTransition]),
        outputs=_texts(row.outputs),
        state=_texts(row.state),
        message=row.message,
    )


def _texts(blob: bytes | None) -> dict[str, str] | None:
    return None if blob is None else unpack(blob, dict[str, str])
