"""``neuro-flow logs``: a job's output, followed."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import find_job, offer


@click.command(
    "logs",
    cls=Command,
    examples="""
        neuro-flow logs train
        neuro-flow logs --tail 20 --no-follow train
        neuro-flow show nightly evaluate   # of a bake's task
    """,
)
@click.argument("job_id", metavar="JOB", shell_complete=offer("jobs"))
@click.argument("suffix", required=False, shell_complete=offer("suffixes"))
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
    context: FlowContext, job_id: str, suffix: str | None, tail: int | None, follow: bool
) -> int:
    """Print the output of JOB; of a multi-job, of the one with SUFFIX."""
    from neuro.flow.cli.platform import LOGS, neuro

    try:
        job = find_job(context, job_id, suffix)
    except Failed as error:
        if suffix is None or job_id in context.workflow.job_ids:
            raise
        said = f"{error}\nThe output of a bake's task: neuro-flow show {job_id} {suffix}"
        raise Failed(said) from None
    options = (() if tail is None else ("--tail", str(tail))) + (() if follow else ("--no-follow",))
    return neuro(context, LOGS, *options, job.id, name="logs")
