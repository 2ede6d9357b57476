"""``neuro kill``: stop jobs."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.domain.errors import InvalidInput, NotFound, NotPermitted


@click.command(
    "kill",
    cls=Command,
    examples="""
        neuro kill my-job
        neuro kill my-job job-fb835ab0-5285-4360-8ee1-880a8ebf824c
    """,
)
@click.argument("jobs", nargs=-1, required=True)
@pass_context
def command(context: Context, jobs: tuple[str, ...]) -> int:
    """Stop JOBS, by name or id. Prints each one that it stops."""
    client, failed = context.client, False
    for job in jobs:
        try:
            job_id = context.run(client.jobs.resolve(job))
            context.run(client.jobs.kill(job_id))
        except (InvalidInput, NotFound, NotPermitted) as error:
            failed = True
            context.out.say(context.out.style(f"Cannot kill job {job}: {error}", fg="red"))
        else:
            context.out.print(job_id)
    return 1 if failed else 0
