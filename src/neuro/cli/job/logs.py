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
        neuro logs --tail 20 my-job             # the last lines, then new ones
        neuro logs --no-follow my-job | grep loss
    """,
)
@click.argument("job")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only output after this.")
@click.option("--timestamps", is_flag=True, help="Print the time before each line.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines, then new ones."
)
@click.option(
    "--follow/--no-follow",
    default=True,
    help="Go on until the job is over, or end with the output so far.",
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

    It goes on after a restart of the server, and ends when its reader ends, as in
    `| head`.
    """
    moment = parse_moment(since, local_now()) if since else None
    job_id = context.run(context.client.jobs.resolve(job))
    sys.stdout.flush()
    part = LogPart(since=moment, timestamps=timestamps, tail=tail, follow=follow)
    copy_log(context, job_id, part)
