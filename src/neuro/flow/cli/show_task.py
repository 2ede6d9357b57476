"""The output of one task of a bake."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from neuro.cli.job.follow import write_all
from neuro.flow.cli.bake_names import LAST, find_attempt, find_bake, find_task, no_such
from neuro.flow.cli.context import FlowContext

if TYPE_CHECKING:
    from neuro.client import Client


def show_task(
    context: FlowContext, bake: str, task_id: str, *, attempt: int | None, raw: bool
) -> None:
    """Print the task's status and its output. Raises Failed, or UsageError before it began."""
    from neuro.flow.cli.bake_looks import COLORS

    found = find_bake(context, bake)
    chosen = find_attempt(context, found, LAST if attempt is None else attempt)
    tasks = context.run(context.client.bakes.tasks(chosen.id))
    task = find_task(tasks, task_id)
    if task is None and any(task_id in nodes for nodes in found.graphs.values()):
        raise click.UsageError(f"Task {task_id} has not begun")
    if task is None:
        known = {node for nodes in found.graphs.values() for node in nodes}
        known |= {it.yaml_id for it in tasks}
        raise no_such("task", task_id, known, f"`neuro-flow inspect {bake}` lists those there are")
    if not context.out.quiet:
        result = context.paint(chosen.result.value, COLORS[chosen.result])
        status = context.paint(task.status.value, COLORS[task.status])
        context.out.print(f"Attempt #{chosen.number} {result}")
        context.out.print(
            f"Task {task_id} {status}" + (f": {task.message}" if task.message else "")
        )
    if task.raw_id is None:
        context.out.note(f"Task {task_id} has no job of its own, and so no output.")
        return
    sys.stdout.flush()
    context.run(_copy(context.streaming_client(), task.raw_id, raw=raw))


async def _copy(client: Client, job_id: str, *, raw: bool) -> None:
    from neuro.flow.batch.commands import CommandReader

    reader = CommandReader()
    async with aclosing(client.jobs.logs(job_id)) as chunks:
        async for chunk in chunks:
            write_all(1, chunk if raw else reader.feed(chunk))
    if not raw:
        write_all(1, reader.close())
