"""``neuro status``: all about one job."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import Output
from neuro.cli.render.job_status import Row, status_rows
from neuro.cli.render.json_text import document, json_option


def print_rows(out: Output, rows: list[Row]) -> None:
    """Labels and values, the values bold or in their colour on a terminal."""
    for row in rows:
        out.print(row.text(lambda text, fg: out.style(text, fg=fg, bold=True)))


@click.command(
    "status",
    cls=Command,
    examples="""
        neuro status my-job
        neuro status job-fb835ab0-5285-4360-8ee1-880a8ebf824c
        neuro status job:/bob/his-job
        neuro status --json my-job | jq -r .status
    """,
)
@click.argument("job")
@click.option("--full-uri", is_flag=True, help="URIs in full.")
@json_option("Print the job as one JSON document, with the fields of the API.")
@pass_context
def command(context: Context, job: str, full_uri: bool, as_json: bool) -> None:
    """Show everything about JOB: an id, a name or a job: URI."""
    found = context.run(context.client.jobs.find(job))
    if as_json:
        context.out.print(document(found))
        return
    print_rows(context.out, status_rows(found, user=context.client.user, full_uri=full_uri))
