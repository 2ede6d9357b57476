"""``neuro job browse``: where a job's web page is."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import ILLEGAL, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output
from neuro.domain.jobs import Job, JobStatus

# Ports below need a privilege on this machine, so that the page is forwarded to one above.
_PLAIN, _ABOVE = 1024, 8000


def browse(out: Output, job: Job) -> None:
    """Say where the page of a job is, and what leads there.

    Pages have no addresses of their own, so there is nothing that a browser could open yet.
    """
    if job.container.http is None:
        raise Failure(f"Job {job.id} serves no web page: run it with --port.", 127)
    name, port = job.name or job.id, job.container.http.port
    if job.status is not JobStatus.RUNNING:
        state = "is over" if job.status.is_finished else "has not started yet"
        raise Failure(f"Job {name} {state} ({job.status.value}): it has no page now.", ILLEGAL)
    local = port if port >= _PLAIN else port + _ABOVE
    out.print(f"Browsing job, please open: http://localhost:{local}/")
    out.note(
        f"It opens while `neuro port-forward {name} {local}:{port}` runs. If the page asks for a"
        f" token, as JupyterLab does, `neuro logs {name}` shows it."
    )
    out.flush()


@click.command("browse", cls=Command, examples="neuro job browse my-notebook")
@click.argument("job")
@pass_context
def command(context: Context, job: str) -> None:
    """Say where the web page of JOB is, and which command leads there."""
    browse(context.out, context.run(context.client.jobs.find(job)))
