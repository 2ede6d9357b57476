"""``neuro job bump-life-span``: let a job live longer."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.job_status import life_span_end
from neuro.cli.render.times import iso, life_span
from neuro.domain.durations import parse_duration
from neuro.domain.errors import InvalidInput
from neuro.domain.life_spans import life_span_minutes


@click.command("bump-life-span", cls=Command, examples="neuro job bump-life-span my-job 1d12h")
@click.argument("job")
@click.argument("additional_life_span")
@pass_context
def command(context: Context, job: str, additional_life_span: str) -> None:
    """Let JOB live ADDITIONAL_LIFE_SPAN longer (1d2h30m)."""
    seconds = parse_duration(additional_life_span).total_seconds()
    minutes = life_span_minutes(seconds, additional_life_span)
    if minutes is None:
        raise InvalidInput("Add a minute or more: write it like 1d2h30m.")
    client, out = context.client, context.out
    job_id = context.run(client.jobs.resolve(job))
    context.run(client.jobs.extend_life_span(job_id, minutes))
    updated = context.run(client.jobs.get(job_id))
    if out.quiet:
        return
    span = life_span(updated.max_run_time_minutes)
    out.print(f"Updated job {job_id} life span to be {span}")
    if end := life_span_end(updated):
        out.print(f"Life span ends (approx): {iso(end)}")
