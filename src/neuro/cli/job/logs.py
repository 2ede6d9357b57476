"""``neuro logs``: a job's output, followed."""

from __future__ import annotations

import sys

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.job.follow import has_begun
from neuro.cli.job.log_copy import copy_log
from neuro.cli.lazy import Command
from neuro.cli.render.times import local_now, parse_moment
from neuro.client.jobs import LogPart
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import JobStatus


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
    _say_how_it_is(context, job, job_id, follow=follow)
    part = LogPart(since=moment, timestamps=timestamps, tail=tail, follow=follow)
    copy_log(context, job_id, part)


def _say_how_it_is(context: Context, name: str, job_id: str, *, follow: bool) -> None:
    try:
        job = context.run(context.client.jobs.get(job_id))
    except ServerUnreachable:
        raise
    except PlatformError:
        return  # Output can be read where the record cannot, and else says itself why not.
    if job.status is JobStatus.PENDING and not has_begun(job):
        then = "its output follows once it runs" if follow else "it has no output"
        context.out.note(
            f"Job {name} has not started yet: {then}. `neuro status {name}` says what it waits for."
        )
    elif job.status is JobStatus.RUNNING and job.history.description:
        # Such as that its image cannot be had, and it has other programs.
        context.out.note(f"Job {name}: {job.history.description}")
