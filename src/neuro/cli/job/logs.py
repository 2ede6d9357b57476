"""``neuro logs``: a job's output, followed."""

from __future__ import annotations

import sys

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.job.log_copy import copy_log
from neuro.cli.lazy import Command
from neuro.cli.render.times import local_now, parse_moment
from neuro.client.jobs import LogPart


@click.command(
    "logs",
    cls=Command,
    examples="""
        neuro logs my-job
        neuro logs --since 10m --timestamps my-job
        neuro logs --tail 20 my-job             # the last lines, and what comes
        neuro logs --no-follow my-job | grep loss
    """,
)
@click.argument("job")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only what came after this.")
@click.option("--timestamps", is_flag=True, help="The time before each line.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines, and what comes."
)
@click.option(
    "--follow/--no-follow",
    default=True,
    help="Whether to go on until the job is over, or to end with what there is.",
    show_default=True,
)
@pass_context
def command(
    context: Context,
    job: str,
    since: str | None,
    timestamps: bool,
    tail: int | None,
    follow: bool,
) -> None:
    """Print the output of JOB, and follow it until the job is over.

    A restart of the server only interrupts it. It ends when nobody reads it any more, as behind
    `| head`.
    """
    moment = parse_moment(since, local_now()) if since else None
    job_id = context.run(context.client.jobs.resolve(job))
    sys.stdout.flush()
    part = LogPart(since=moment, timestamps=timestamps, tail=tail, follow=follow)
    copy_log(context, job_id, part)
