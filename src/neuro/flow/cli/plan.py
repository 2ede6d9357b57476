"""``neuro-flow plan``: what a batch would run, and what it would not; nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuro.cli.failures import Failure
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column
from neuro.cli.render.times import ago, local_now
from neuro.flow.cli.bake_names import server_project
from neuro.flow.cli.bake_options import graph_option
from neuro.flow.cli.batch_params import batch_argument, check_presets, param_options, plan_of
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.thin_table import Layout, Row, firm, thin_table

if TYPE_CHECKING:
    from neuro.flow.batch.forecast import Forecast
    from neuro.flow.batch.plan import Plan
    from neuro.flow.batch.sketch import Mark
    from neuro.flow.model import Node

COLUMNS = (Column("TASK"), Column("KIND"), Column("IMAGE"), Column("PRESET"), firm("THEN"))
# Stands for a value that only the run decides.
_LATER = "?"


@click.command(
    "plan",
    cls=Command,
    examples="""
        neuro-flow plan train
        neuro-flow plan train -p lr 0.1
        neuro-flow plan train --output-graph plan.svg
        neuro-flow -q plan train | wc -l
    """,
)
@batch_argument
@param_options
@graph_option
@json_option()
@pass_context
def command(
    context: FlowContext,
    batch: str,
    param: tuple[tuple[str, str], ...],
    file: Path | None,
    output_graph: str | None,
    as_json: bool,
) -> None:
    """Show what `bake` would run, in order. Nothing is started, and nothing is stored.

    The column THEN says which tasks run, which are skipped, and which take an earlier bake's
    outcome. `depends` and `?` stand for what the outcomes of other tasks decide.

    Every mistake in the files is reported, with exit code 1.
    """
    from neuro.flow.batch.layers import in_order

    plan = plan_of(context, batch, param, file)
    out = context.out
    if output_graph is not None:
        from neuro.flow.cli.graph_file import GraphFile, write_graph

        graph_file = GraphFile.of(output_graph, None, plan.workflow.batch)
        write_graph(context, graph_file, plan.workflow.batch, plan.graphs, {}, {})
        return
    if out.quiet:
        for full_id in in_order(plan.graphs):
            out.print(full_id)
        return
    now = local_now()
    known = _forecast(context, plan, now)
    if as_json:
        out.print(document(as_told(plan, known)))
        return
    for line in [*_head(plan), *_table(context, plan, known, now), *_picture(context, plan, known)]:
        out.print(line)
    out.print(_summary(plan, known))


def _forecast(context: FlowContext, plan: Plan, now: datetime) -> dict[str, Forecast]:
    from neuro.domain.errors import PlatformError
    from neuro.flow.batch.forecast import forecast

    try:
        check_presets(context, plan)
        project_id = server_project(context)
        return context.run(forecast(context.client, plan, project_id, now))
    except (Failure, PlatformError) as error:
        context.out.note(f"The cached outcomes are not known: {error}")
        return context.run(forecast(None, plan, None, now))


def as_told(plan: Plan, known: Mapping[str, Forecast]) -> dict[str, object]:
    """A plan as JSON for programs. ``needs`` are the tasks that one waits for."""
    graphs = plan.graphs.values()
    needs = {task: sorted(others) for graph in graphs for task, others in graph.items()}
    tasks = [
        {
            "task": full_id,
            "kind": _KINDS[plan.nodes[full_id].kind.value],
            "image": one.task.image if one.task else None,
            "preset": one.task.preset if one.task else None,
            "then": one.future.value,
            "cached_at": one.entry.created_at if one.entry else None,
            "needs": needs.get(full_id, []),
        }
        for full_id, one in known.items()
    ]
    return {
        "batch": plan.workflow.batch,
        "project": plan.workflow.project_id,
        "params": plan.params,
        "life_span_seconds": plan.life_span,
        "tasks": tasks,
    }


def _head(plan: Plan) -> Iterator[str]:
    from neuro.flow.cli.bake_looks import assignments, how_long

    workflow = plan.workflow
    yield f"Batch {workflow.batch} of project {workflow.project_id}"
    if plan.params:
        yield f"Parameters: {assignments(plan.params)}"
    if plan.life_span is not None:
        yield f"Life span: {how_long(timedelta(seconds=plan.life_span))}"
    if plan.concurrency is not None:
        what = "ends those before it" if plan.concurrency.cancel_running else "waits for its turn"
        yield f"Concurrency group: {plan.concurrency.group}; {what}"
    if plan.schedule is not None:
        schedule = plan.schedule
        yield (
            f"Schedule: {schedule.cron} ({schedule.timezone}), overlap: {schedule.overlap.value},"
            f" catch up: {schedule.catch_up.value}"
        )


def _table(
    context: FlowContext, plan: Plan, known: Mapping[str, Forecast], now: datetime
) -> list[str]:
    rows = [_row(full_id, plan.nodes[full_id], known[full_id], now) for full_id in known]
    return thin_table([Layout(COLUMNS, rows)], context.paint, terminal_width(), colored="THEN")


def _row(full_id: str, node: Node, one: Forecast, now: datetime) -> Row:
    from neuro.flow.batch.forecast import Future

    task = one.task
    image = preset = then = ""
    fg = None
    if task is not None:
        image, preset = task.image or _LATER, task.preset or "default"
    if one.entry is not None:
        then, fg = f"cached {ago(one.entry.created_at, now)}", "magenta"
    elif one.future is Future.SKIPPED:
        then, fg = "skipped", "bright_black"
    elif one.future is Future.OPEN:
        then, fg = "depends", "bright_black"
    elif one.future is Future.RUNS:
        then = "runs"
    return Row((full_id, _KINDS[node.kind.value], image, preset, then), fg)


_KINDS: Mapping[str, str] = {
    "task": "task",
    "call": "action",
    "stateful": "stateful",
    "post": "post",
    "local": "local",
    "group": "matrix of outputs",
}


def _picture(context: FlowContext, plan: Plan, known: Mapping[str, Forecast]) -> list[str]:
    from neuro.flow.batch.forecast import Future
    from neuro.flow.batch.sketch import sketch

    # Among tasks that are answered, those that run are what is looked for.
    loud = any(one.future is Future.CACHED for one in known.values())

    def mark(node: str) -> Mark:
        return _mark(plan.nodes[node], known[node], loud=loud)

    drawn = sketch(plan.graphs, mark, context.paint, width=terminal_width() or 100)
    return [*drawn, ""]


def _mark(node: Node, one: Forecast, *, loud: bool) -> Mark:
    from neuro.domain.bakes import TaskStatus
    from neuro.flow.batch.forecast import Future
    from neuro.flow.batch.sketch import Mark
    from neuro.flow.cli import bake_looks
    from neuro.flow.model import NodeKind

    if one.future is Future.CACHED:
        return bake_looks.mark(TaskStatus.CACHED)
    if one.future is Future.SKIPPED:
        return bake_looks.mark(TaskStatus.SKIPPED)
    note = "× as outputs say" if node.kind is NodeKind.GROUP else ""
    kind = "to run" if one.future is Future.RUNS else ""
    return Mark(bake_looks.WAITING_SIGN, note=note, kind=kind, loud=loud and bool(kind))


def _summary(plan: Plan, known: Mapping[str, Forecast]) -> str:
    from neuro.flow.batch.forecast import Future
    from neuro.flow.model import NodeKind

    tasks = [it for it in known if plan.nodes[it].kind is not NodeKind.CALL]
    counts = Counter(known[it].future for it in tasks)
    words = [f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}"]
    if counts[Future.CACHED]:
        words.append(f"{counts[Future.CACHED]} answered by earlier bakes")
    if counts[Future.SKIPPED]:
        words.append(f"{counts[Future.SKIPPED]} skipped")
    return ", ".join(words) + "."
