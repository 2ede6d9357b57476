"""``neuro-flow inspect``: an attempt of a bake and its tasks; as a graph too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column
from neuro.cli.render.times import local_now
from neuro.domain.printable import printable
from neuro.flow.cli.bake_names import find_attempt, find_bake
from neuro.flow.cli.bake_options import attempt_option, graph_option
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import offer
from neuro.flow.cli.thin_table import NEVER, Layout, Row, firm, thin_table

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, BakeImage, Graphs, Task

# A message may have several lines.
_KEPT = "\n\t"
TASK_COLUMNS = (
    Column("ID"),
    firm("STATUS"),
    Column("RAW ID", shrinks=False, spare=1),
    firm("STARTED"),
    firm("FINISHED"),
    firm("TOOK"),
)
IMAGE_COLUMNS = (Column("REF"), firm("STATUS"), Column("BUILDER ID", shrinks=False, spare=1))


def task_row(task: Task, now: datetime, *, is_over: bool = False) -> Row:
    """A task's row; where its attempt ``is_over``, no duration grows."""
    from neuro.flow.cli.bake_looks import COLORS, clock, finished_at, how_long, started_at, took

    begun, ended, duration = started_at(task), finished_at(task), took(task, now)
    return Row(
        (
            task.yaml_id,
            task.status.value,
            task.raw_id or NEVER,
            clock(begun, now) if begun else NEVER,
            clock(ended, now) if ended else NEVER,
            how_long(duration) if duration is not None and (ended or not is_over) else NEVER,
        ),
        COLORS[task.status],
    )


def image_row(image: BakeImage) -> Row:
    """An image's row."""
    from neuro.flow.cli.bake_looks import IMAGE_COLORS

    cells = (image.ref, image.status.value, image.builder_job_id or NEVER)
    return Row(cells, IMAGE_COLORS[image.status])


def by_creation(tasks: Sequence[Task], graphs: Graphs) -> list[Task]:
    """Tasks in the order in which they came up; those of one moment as the graphs have them."""
    from neuro.flow.batch.layers import in_order

    order = {node: number for number, node in enumerate(in_order(graphs))}

    def key(task: Task) -> tuple[float, int]:
        first = task.statuses[0].created_at.timestamp() if task.statuses else 0.0
        return first, order.get(task.yaml_id, len(order))

    return sorted(tasks, key=key)


class Seen(NamedTuple):
    """Everything that `inspect` shows of an attempt."""

    bake: Bake
    attempt: Attempt
    tasks: Sequence[Task]
    images: Sequence[BakeImage]
    executor: str | None


def told(context: FlowContext, seen: Seen, now: datetime) -> Iterator[str]:
    """The lines about an attempt."""
    from neuro.domain.bakes import TaskStatus
    from neuro.flow.cli.bake_looks import COLORS, assignments, how_long, outputs_line
    from neuro.flow.cli.board import finished_time

    bake, attempt, paint = seen.bake, seen.attempt, context.paint
    result = paint(attempt.result.value, COLORS[attempt.result])
    yield f"Bake id: {bake.id}"
    if bake.name:
        yield f"Name: {bake.name}"
    yield f"Batch: {bake.batch}"
    if bake.tags:
        yield f"Tags: {', '.join(bake.tags)}"
    if bake.params:
        yield f"Parameters: {assignments(bake.params)}"
    ended = finished_time(attempt, seen.tasks)
    took = f" in {how_long(ended - attempt.created_at)}" if ended else ""
    yield f"Attempt #{attempt.number} {result}{took}"
    if attempt.message:
        yield f"  {printable(attempt.message, keep=_KEPT)}"
    concurrency = bake.meta.concurrency
    if concurrency is not None and attempt.result is TaskStatus.PENDING:
        yield f"  Bakes of its concurrency group '{concurrency.group}' run one after the other."
    if attempt.executor_id:
        yield f"Executor {attempt.executor_id} {seen.executor}"
    yield "Tasks:"
    rows = [task_row(task, now, is_over=attempt.result.is_finished) for task in seen.tasks]
    yield from thin_table([Layout(TASK_COLUMNS, rows)], paint, terminal_width())
    outputs = [task for task in seen.tasks if task.outputs]
    if outputs:
        yield "Outputs:"
        yield from (f"  {task.yaml_id}: {outputs_line(task.outputs or {})}" for task in outputs)
    messages = [(task.yaml_id, task.message) for task in seen.tasks if task.message]
    if messages:
        yield "Messages:"
        for task_id, text in messages:
            first, *rest = map(printable, text.splitlines())
            yield f"  {task_id}: {first}"
            yield from (f"  {line}" for line in rest)
    if seen.images:
        yield "Images:"
        images = Layout(IMAGE_COLUMNS, [image_row(it) for it in seen.images])
        yield from thin_table([images], paint, terminal_width())


@click.command(
    "inspect",
    cls=Command,
    examples="""
        neuro-flow inspect nightly
        neuro-flow inspect nightly --watch            # see it go on, until it is over
        neuro-flow inspect nightly --outputs          # beside the matrix values
        neuro-flow inspect nightly --graph
        neuro-flow inspect nightly --output-graph graph.pdf
        neuro-flow inspect --attempt 1 bake-2c9d8e1f-5b1c-4a7e-9f60-3d2b1a0c9e8f
    """,
)
@click.argument("bake", metavar="BAKE", shell_complete=offer("bakes"))
@attempt_option()
@click.option("-w", "--watch", is_flag=True, help="Show what changes, until the bake is over.")
@click.option(
    "--outputs", is_flag=True, help="Show the outputs of tasks, beside the values of their matrix."
)
@click.option("--graph", is_flag=True, help="Draw the graph in the terminal.")
@graph_option
@click.option("--dot", "kind", flag_value="dot", help="Write it for Graphviz, as BAKE_N.gv.")
@click.option("--pdf", "kind", flag_value="pdf", help="Write it as a PDF, BAKE_N.gv.pdf.")
@click.option("--view", is_flag=True, help="Open the file that was written.")
@json_option("Print one JSON document; with --watch, a line for each change.")
@pass_context
def command(
    context: FlowContext,
    bake: str,
    attempt: int,
    watch: bool,
    outputs: bool,
    graph: bool,
    output_graph: str | None,
    kind: str | None,
    view: bool,
    as_json: bool,
) -> int:
    """Show an attempt of BAKE, which is an id or a name, and its tasks.

    In a narrow terminal the column RAW ID is left out.

    A .png is drawn by Graphviz's `dot`, which must be installed; the other files need nothing.
    """
    found = find_bake(context, bake)
    chosen = find_attempt(context, found, attempt)
    if watch:
        from neuro.flow.cli.watch import watch_to_end

        if as_json:
            from neuro.flow.cli.bake_json import bake_line

            context.out.print(bake_line(found, chosen))
        return watch_to_end(context, found, chosen, as_json=as_json)
    bakes = context.client.bakes
    tasks = by_creation(context.run(bakes.tasks(chosen.id)), found.graphs)
    tasks = with_reasons(context, found, tasks)
    if output_graph or kind or view:
        from neuro.flow.cli.graph_file import GraphFile, write_graph

        file = GraphFile.of(output_graph, kind, f"{found.id}_{chosen.number}")
        statuses = {task.yaml_id: task.status for task in tasks}
        write_graph(context, file, found.batch, found.graphs, statuses, _times(tasks), view=view)
        return 0
    if outputs or as_json:
        _print_outputs(context, found, chosen, tasks, as_json=as_json)
        return 0
    if context.out.quiet:
        for task in tasks:
            context.out.print(task.yaml_id)
        return 0
    images = context.run(bakes.images(found.id))
    seen = Seen(found, chosen, tasks, images, _executor(context, chosen))
    if not graph:
        for line in told(context, seen, local_now()):
            context.out.print(line)
        return 0
    for line in drawn(context, seen):
        context.out.print(line)
    return 0


def _print_outputs(
    context: FlowContext, bake: Bake, attempt: Attempt, tasks: Sequence[Task], *, as_json: bool
) -> None:
    from neuro.flow.cli import outputs

    known = outputs.matrices(context, bake, attempt, tasks)
    if not as_json:
        for line in outputs.told(context, tasks, known):
            context.out.print(line)
        return
    from neuro.flow.cli.bake_json import inspect_document

    images = context.run(context.client.bakes.images(bake.id))
    values = {task_id: row.values for task_id, row in known.items()}
    context.out.print(document(inspect_document(bake, attempt, tasks, values, images)))


def _times(tasks: Sequence[Task]) -> dict[str, str]:
    from neuro.flow.cli.bake_looks import how_long, took

    now = local_now()
    return {it.yaml_id: how_long(ran) for it in tasks if (ran := took(it, now)) is not None}


def with_reasons(context: FlowContext, bake: Bake, tasks: list[Task]) -> list[Task]:
    """The tasks, with what the pending ones wait for as their messages."""
    from msgspec.structs import replace

    from neuro.domain.errors import PlatformError
    from neuro.flow.cli.waiting import reasons

    try:
        found = context.run(reasons(context.client, bake.id, tasks))
    except PlatformError:  # Its jobs may be somebody else's.
        return tasks
    return [
        replace(task, message=task.message or found.get(task.yaml_id))
        if task.yaml_id in found
        else task
        for task in tasks
    ]


def drawn(context: FlowContext, seen: Seen) -> list[str]:
    """The graph in lines."""
    from neuro.flow.batch.sketch import sketch
    from neuro.flow.cli.bake_looks import mark

    statuses = {task.yaml_id: task.status for task in seen.tasks}
    return sketch(
        seen.bake.graphs,
        lambda node: mark(statuses.get(node)),
        context.paint,
        width=terminal_width() or 100,
        shorten=False,
    )


def _executor(context: FlowContext, attempt: Attempt) -> str | None:
    from neuro.domain.errors import PlatformError

    if attempt.executor_id is None:
        return None
    from neuro.domain.bakes import TaskStatus

    try:
        job = context.run(context.client.jobs.get(attempt.executor_id))
        if attempt.result is TaskStatus.CANCELLED and job.status.is_finished:
            return "ended"  # Its exit code tells scripts that the bake did not succeed: no fault.
        return job.status.value
    except PlatformError:
        return "unknown"  # Its job may be somebody else's.
