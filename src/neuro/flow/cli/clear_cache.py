"""``neuro-flow clear-cache``: forget outcomes of tasks, so that they run again."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.bake_names import check_batch, server_project
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import ALL, offer


@click.command(
    "clear-cache",
    cls=Command,
    examples="""
        neuro-flow clear-cache train          # every task of a batch
        neuro-flow clear-cache train prepare  # one task
        neuro-flow clear-cache ALL
    """,
)
@click.argument("batch", metavar="BATCH|ALL", shell_complete=offer("batches_or_all"))
@click.argument("task_id", metavar="[TASK]", required=False, shell_complete=offer("batch_tasks"))
@pass_context
def command(context: FlowContext, batch: str, task_id: str | None) -> None:
    """Forget the outcomes that are kept for BATCH, for its TASK, or for ALL of the project.

    A task's id is the whole one, as `inspect` shows it. Batches that the project does not have any
    more are forgotten with ALL.
    """
    if batch == ALL and task_id is not None:
        raise click.UsageError("ALL is every task of every batch: it takes no TASK")
    name = None if batch == ALL else check_batch(context, batch)
    project_id = server_project(context)
    if project_id is not None:
        context.run(context.client.bakes.clear_cache(project_id, name, task_id))
    if not context.out.quiet:
        what = "all batches" if name is None else f"batch {name}"
        task = f"task {task_id} of " if task_id else ""
        context.out.print(f"Forgot what was kept for {task}{what}.")
