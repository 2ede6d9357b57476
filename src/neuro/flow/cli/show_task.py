"""The output of one task of a bake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from neuro.domain.bakes import TaskStatus
from neuro.flow.cli.bake_names import LAST, find_attempt, find_bake, find_task, no_such, task_names
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.failures import Failed

if TYPE_CHECKING:
    from neuro.domain.bakes import Graphs, Task

# How many other tasks are named in a message.
_NAMED = 3


def show_task(
    context: FlowContext,
    bake: str,
    task_id: str,
    *,
    attempt: int | None,
    raw: bool,
    as_json: bool = False,
) -> None:
    """Print the task's status and its output. Raises Failed, or UsageError before it began."""
    from neuro.flow.cli.bake_looks import COLORS, outputs_lines

    found = find_bake(context, bake)
    chosen = find_attempt(context, found, LAST if attempt is None else attempt)
    tasks = context.run(context.client.bakes.tasks(chosen.id))
    task = find_task(tasks, task_id)
    if task is None and any(task_id in nodes for nodes in found.graphs.values()):
        when = f" when attempt #{chosen.number} ended" if chosen.result.is_finished else ""
        raise click.UsageError(f"Task {task_id} {'had' if when else 'has'} not begun{when}")
    if task is None:
        _refuse_whole(found.graphs, task_id)
        known = task_names(found.graphs) | {it.yaml_id for it in tasks}
        raise no_such("task", task_id, known, f"`neuro-flow inspect {bake}` lists its tasks")
    if as_json:
        from neuro.cli.render.json_text import document
        from neuro.flow.cli.bake_json import task_document

        context.out.print(document(task_document(task)))
        return
    context.out.leave_stdout_to_job()
    if not context.out.quiet:
        result = context.paint(chosen.result.value, COLORS[chosen.result])
        status = context.paint(task.status.value, COLORS[task.status])
        context.out.print(f"Attempt #{chosen.number} {result}")
        context.out.print(
            f"Task {task_id} {status}" + (f": {task.message}" if task.message else "")
        )
        if task.outputs:
            context.out.print("Outputs:")
            for line in outputs_lines(task.outputs, "  "):
                context.out.print(line)
    if task.raw_id is None:
        context.out.note(_why_silent(task, found.graphs))
        return
    sys.stdout.flush()
    for warning in _copy(context, task.raw_id, raw=raw):
        context.out.note(warning)


def _refuse_whole(graphs: Graphs, task_id: str) -> None:
    """Raise Failed where a matrix was named, whose rows are the tasks."""
    nodes = graphs.get(task_id.rpartition(".")[0], {})
    rows = [node for node in nodes if node.startswith(f"{task_id}-")]
    if rows:
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        raise Failed(
            f"There is no task {task_id}. Did you mean one of {', '.join(rows[:_NAMED])}{more}?"
        )


def _why_silent(task: Task, graphs: Graphs) -> str:
    name = task.yaml_id
    if name in graphs:
        inner = ", ".join([*graphs[name]][:_NAMED])
        more = "…" if len(graphs[name]) > _NAMED else ""
        return f"Task {name} has no job of its own, it calls others: {inner}{more}."
    if task.status is TaskStatus.SKIPPED:
        return (
            f"Task {name} was skipped: its `enable` was false, which is the default "
            "after a task that it needs did not succeed; or the bake was being cancelled."
        )
    return f"Task {name} has no job of its own, and so no output."


def _copy(context: FlowContext, job_id: str, *, raw: bool) -> list[str]:
    """Write a job's output; return warnings about lines that look like commands and are not."""
    from neuro.cli.job.log_copy import copy_log, print_bytes
    from neuro.client.jobs import LogPart
    from neuro.flow.batch.commands import CommandReader

    if raw:
        copy_log(context, job_id, LogPart())
        return []
    reader = CommandReader()
    copy_log(context, job_id, LogPart(), lambda chunk: print_bytes(reader.feed(chunk)))
    print_bytes(reader.close())
    return reader.warnings
