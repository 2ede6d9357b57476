"""``neuro-flow ps``: the jobs of the live workflow, with what became of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import click

from neuro.cli.lazy import Command
from neuro.cli.render.job_row import STATUS_COLORS, when
from neuro.cli.render.table import display_width
from neuro.cli.render.times import ago, local_now
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.live import Row

TITLES = ("JOB", "STATUS", "RAW ID", "WHEN")
NEVER = "N/A"
Paint = Callable[[str, str | None], str]


class Shown(NamedTuple):
    """The cells of a row, and the colour of its status."""

    cells: tuple[str, ...]
    fg: str


def shown(row: Row, now: datetime) -> Shown:
    """What is said of a job."""
    job = row.job
    if job is None:
        return Shown((row.label, "unknown", NEVER, NEVER), "bright_black")
    moment = when(job)
    cells = (row.label, job.status.value, job.id, ago(moment, now) if moment else NEVER)
    return Shown(cells, STATUS_COLORS[job.status])


def table(rows: Sequence[Shown], paint: Paint) -> list[str]:
    """The lines of the table: thin lines between the columns and below the titles."""
    columns = zip(TITLES, *(row.cells for row in rows), strict=True)
    widths = [max(display_width(cell) for cell in column) for column in columns]

    def line(cells: Sequence[str], fg: str | None = None) -> str:
        padded = [
            paint(cell, fg if number == 1 else None) + " " * (width - display_width(cell))
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"  {' │ '.join(padded)}".rstrip()

    rule = "┼".join("─" * (width + 2) for width in widths)
    foot = "╵".join(" " * (width + 2) for width in widths)
    return [
        "",
        line(TITLES),
        f"╶{rule}╴",
        *(line(row.cells, row.fg) for row in rows),
        f" {foot}".rstrip(),
    ]


@click.command("ps", cls=Command, examples="neuro-flow ps")
@pass_context
def command(context: FlowContext) -> None:
    """List the jobs of the live workflow: what runs, and what ended within a week.

    A multi-job has a line for each suffix.
    """
    out = context.out
    rows = context.run(context.live.rows())
    if out.quiet:
        for row in rows:
            if row.job is not None:
                out.print(row.job.id)
        return
    now = local_now()
    for line in table([shown(row, now) for row in rows], lambda text, fg: out.style(text, fg=fg)):
        out.print(line)
