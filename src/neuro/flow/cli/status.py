"""``neuro-flow status``: all about a job."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.cli.render.json_text import json_option
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import find_job, offer


@click.command("status", cls=Command, examples="neuro-flow status train")
@click.argument("job_id", metavar="JOB", shell_complete=offer("jobs"))
@click.argument("suffix", required=False, shell_complete=offer("suffixes"))
@json_option("Print the job as one JSON document, with the fields of the API.")
@pass_context
def command(context: FlowContext, job_id: str, suffix: str | None, as_json: bool) -> int:
    """Show everything about JOB; of a multi-job, about the one with SUFFIX."""
    from neuro.flow.cli.platform import STATUS, neuro

    options = ("--json",) if as_json else ()
    return neuro(context, STATUS, *options, find_job(context, job_id, suffix).id, name="status")
