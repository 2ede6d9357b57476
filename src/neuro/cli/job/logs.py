"""``neuro logs``: a job's output, followed."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import datetime

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.job.follow import write_all
from neuro.cli.lazy import Command
from neuro.cli.render.times import local_now, parse_moment
from neuro.client import Client


async def copy(client: Client, job_id: str, *, since: datetime | None, timestamps: bool) -> None:
    """The log to standard output, byte for byte."""
    async with aclosing(client.jobs.logs(job_id, since=since, timestamps=timestamps)) as chunks:
        async for chunk in chunks:
            write_all(1, chunk)


@click.command(
    "logs",
    cls=Command,
    examples="""
        neuro logs my-job
        neuro logs --since 10m --timestamps my-job
        neuro logs my-job | grep loss
    """,
)
@click.argument("job")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only what came after this.")
@click.option("--timestamps", is_flag=True, help="The time before each line.")
@pass_context
def command(context: Context, job: str, since: str | None, timestamps: bool) -> None:
    """Print the output of JOB, and follow it until the job is over."""
    moment = parse_moment(since, local_now()) if since else None
    client = context.streaming_client()
    job_id = context.run(client.jobs.resolve(job))
    sys.stdout.flush()
    context.run(copy(client, job_id, since=moment, timestamps=timestamps))
