"""``neuro admin usage``: what each person uses now, and has used."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict, dataclass

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Column, Line, Table
from neuro.cli.render.times import local_now, parse_moment
from neuro.domain.jobs import Job, JobFilter, JobStatus

_HOUR = 3600.0


@dataclass
class Usage:
    """One person's: jobs by count, ``cpu`` and ``gpu`` now, and hours of them since a moment."""

    pending: int = 0
    running: int = 0
    over: int = 0
    cpu: float = 0.0
    memory: int = 0
    gpu: int = 0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0

    def add(self, job: Job) -> None:
        """Count a job."""
        resources = job.container.resources
        gpus = resources.gpu or resources.nvidia_gpu or 0
        hours = (job.history.run_time_seconds or 0.0) / _HOUR
        self.cpu_hours += hours * resources.cpu
        self.gpu_hours += hours * gpus
        if job.status is JobStatus.RUNNING:
            self.running += 1
            self.cpu += resources.cpu
            self.memory += resources.memory
            self.gpu += gpus
        elif job.status.is_finished:
            self.over += 1
        else:
            self.pending += 1


async def _collect(context: Context, query: JobFilter) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    async with aclosing(context.client.jobs.list(query)) as jobs:
        async for job in jobs:
            found.setdefault(job.owner, Usage()).add(job)
    return found


@click.command(
    "usage",
    cls=Command,
    examples="""
        neuro admin usage
        neuro admin usage --since 30d
    """,
)
@click.option(
    "--since",
    default="7d",
    show_default=True,
    metavar="DATE_OR_TIMEDELTA",
    help="Count jobs that were created after this.",
)
@json_option("Print one JSON document; memory is bytes.")
@pass_context
def command(context: Context, since: str, as_json: bool) -> None:
    """Show what each person's jobs use now, and how long they have run.

    CPU, MEMORY and GPU are what running jobs hold; the hours are what all jobs held since then.
    """
    query = JobFilter(since=parse_moment(since, local_now()), cluster_name=context.account.cluster)
    found = context.run(_collect(context, query))
    people = sorted(found.items(), key=lambda item: -item[1].cpu_hours)
    if as_json:
        context.out.print(document([{"owner": owner, **asdict(it)} for owner, it in people]))
        return
    names = (
        "OWNER",
        "PENDING",
        "RUNNING",
        "OVER",
        "CPU",
        "MEMORY",
        "GPU",
        "CPU-HOURS",
        "GPU-HOURS",
    )
    rows = [tuple((Line(text),) for text in (owner, *_texts(usage))) for owner, usage in people]
    table = Table([Column(name) for name in names], width=terminal_width())
    table.measure(rows)
    for line in (table.header(), *table.lines(rows)):
        context.out.print(line)


def _texts(usage: Usage) -> tuple[str, ...]:
    return (
        str(usage.pending),
        str(usage.running),
        str(usage.over),
        f"{usage.cpu:g}",
        gnu_size(usage.memory),
        str(usage.gpu),
        f"{usage.cpu_hours:.2f}",
        f"{usage.gpu_hours:.2f}",
    )
