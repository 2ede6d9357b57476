"""``neuro-flow clear-cache``: forget outcomes of tasks, so that they run again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.bake_names import check_batch, no_such, server_project, task_names
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import ALL, offer

if TYPE_CHECKING:
    from neuro.domain.bakes import Graphs


@click.command(
    "clear-cache",
    cls=Command,
    examples="""
        neuro-flow clear-cache train          # every task of a batch
        neuro-flow clear-cache train prepare  # one task, or the rows of one matrix
        neuro-flow clear-cache ALL
    """,
)
@click.argument("batch", metavar="BATCH|ALL", shell_complete=offer("batches_or_all"))
@click.argument("task_id", metavar="[TASK]", required=False, shell_complete=offer("batch_tasks"))
@pass_context
def command(context: FlowContext, batch: str, task_id: str | None) -> None:
    """Forget the cached outcomes of BATCH, of its TASK, or of the project's batches (ALL).

    TASK is a full id, as `inspect` shows it. The id of a matrix stands for all its rows, and the id
    of a call for all tasks in it. ALL includes batches that the project does not have any more.
    """
    if batch == ALL and task_id is not None:
        raise click.UsageError("ALL is every task of every batch: it takes no TASK")
    name = None if batch == ALL else check_batch(context, batch)
    project_id = server_project(context)
    tasks: list[str] | list[None] = [None]
    if project_id is not None and name is not None and task_id is not None:
        tasks = _meant(context, project_id, name, task_id)
    if project_id is not None:
        for task in tasks:
            context.run(context.client.bakes.clear_cache(project_id, name, task))
    if not context.out.quiet:
        what = "all batches" if name is None else f"batch {name}"
        if task_id is not None:
            more = f" ({len(tasks) - 1} tasks)" if len(tasks) > 1 else ""
            what = f"task {task_id}{more} of {what}"
        context.out.print(f"Forgot the cached outcomes of {what}.")


def _meant(context: FlowContext, project_id: str, batch: str, task_id: str) -> list[str]:
    """A task, the rows of its matrix, and all that is called there, as far as bakes had them."""
    from neuro.domain.bakes import BakeFilter

    bakes = context.run(context.client.bakes.list(BakeFilter(project_id=project_id)))
    found, known = {task_id: None}, set[str]()
    for bake in bakes:
        if bake.batch == batch:
            known.update(task_names(bake.graphs))
            found.update(dict.fromkeys(_below(bake.graphs, task_id)))
    if known and task_id not in known and len(found) == 1:
        advice = f"`neuro-flow plan {shlex.quote(batch)}` shows its tasks"
        raise no_such("task", task_id, known, advice)
    return [*found]


def _below(graphs: Graphs, task_id: str) -> Iterator[str]:
    waiting = [task_id]
    # An id that people write has no dash: what follows one tells its rows apart.
    for nodes in graphs.values():
        if any(node.startswith(f"{task_id}-") for node in nodes) and task_id not in nodes:
            waiting += [node for node in nodes if node.startswith(f"{task_id}-")]
    for node in waiting:
        yield node
        waiting += graphs.get(node, ())
