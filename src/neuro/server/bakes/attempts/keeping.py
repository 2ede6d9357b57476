"""Copies the tasks that a new attempt keeps of an earlier one, in one transaction.

A reader that sees the attempt sees the kept tasks too: an executor that began without them would
run them again.
"""

from __future__ import annotations

from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, Kept, Task, TaskStatus, TaskTransition, new_id
from neuro.domain.errors import InvalidInput
from neuro.server.bakes.attempts import tables
from neuro.server.bakes.tasks import tables as tasks


def take_over(connection: Connection, attempt: Attempt, kept: Kept) -> None:
    """Copy the kept records to an attempt that was just added.

    Raises InvalidInput for a record that the earlier attempt does not have.
    """
    source = tables.by_number(connection, attempt.bake_id, kept.attempt)
    if source is None:
        raise InvalidInput(f"This bake has no attempt #{kept.attempt} to keep tasks from.")
    known = tasks.steps_of(connection, source.id, {*kept.tasks, *kept.calls})
    for yaml_id in kept.tasks:
        steps = known.get(yaml_id)
        if not steps or not steps[-1].status.is_finished:
            raise _cannot_be_kept(yaml_id, "ended", source)
    begun: list[Task] = []
    for yaml_id in kept.calls:
        steps = known.get(yaml_id)
        if not steps:
            raise _cannot_be_kept(yaml_id, "begun", source)
        first = TaskTransition(created_at=steps[0].created_at, status=TaskStatus.PENDING)
        begun.append(
            Task(id=new_id("task"), attempt_id=attempt.id, yaml_id=yaml_id, statuses=[first])
        )
    tasks.copy_tasks(connection, source.id, attempt.id, kept.tasks)
    if begun:
        tasks.put_tasks(connection, [tasks.row_of(task) for task in begun])


def _cannot_be_kept(yaml_id: str, what: str, source: Attempt) -> InvalidInput:
    return InvalidInput(
        f"Task '{yaml_id[:80]}' has not {what} in attempt #{source.number}: it cannot be kept."
    )
