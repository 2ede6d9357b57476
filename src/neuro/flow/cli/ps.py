"""``neuro-flow ps``: the jobs of the live workflow, with what became of each."""

from __future__ import annotations

from datetime import datetime

import click

from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.job_row import STATUS_COLORS, when
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column
from neuro.cli.render.times import ago, local_now
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.thin_table import NEVER, Layout, Row, firm, thin_table
from neuro.flow.live import LiveRow as LiveRow

COLUMNS = (Column("JOB"), firm("STATUS"), firm("RAW ID"), firm("WHEN"))
NARROW = (Column("JOB/RAW ID"), firm("STATUS"), firm("WHEN"))


def shown(row: LiveRow, now: datetime) -> Row:
    """A job's row."""
    job = row.job
    if job is None:
        return Row((row.label, "unknown", NEVER, NEVER), "bright_black")
    moment = when(job)
    cells = (row.label, job.status.value, job.id, ago(moment, now) if moment else NEVER)
    return Row(cells, STATUS_COLORS[job.status])


def layouts(rows: list[Row]) -> list[Layout]:
    """The ways to list jobs, the widest first."""

    def narrow(row: Row) -> Row:
        label, status, raw_id, moment = row.cells
        below = "" if raw_id == NEVER else f"\n  {raw_id}"
        return row._replace(cells=(label + below, status, moment))

    return [Layout(COLUMNS, rows), Layout(NARROW, [*map(narrow, rows)])]


@click.command("ps", cls=Command, examples="neuro-flow ps")
@json_option()
@pass_context
def command(context: FlowContext, as_json: bool) -> None:
    """List the jobs of the live workflow: what runs, and what ended within a week.

    A multi-job has a line for each suffix.
    """
    out = context.out
    rows = context.run(context.live.rows())
    if as_json:
        out.print(document([row._asdict() for row in rows]))
        return
    if out.quiet:
        for row in rows:
            if row.job is not None:
                out.print(row.job.id)
        return
    now = local_now()
    told = [shown(row, now) for row in rows]
    for line in thin_table(layouts(told), context.paint, terminal_width()):
        out.print(line)
