"""``neuro-flow kill``: stop jobs, and wait until they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neuro.cli.job.kill import kill_document
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.domain.jobs import Job
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import ALL, check_job, offer
from neuro.flow.live import label, suffixes

if TYPE_CHECKING:
    from neuro.flow.evaluate.jobs import LiveWorkflow

# So many jobs are waited for at once: their ids are part of an address.
TOGETHER = 100


@click.command(
    "kill",
    cls=Command,
    examples="""
        neuro-flow kill train
        neuro-flow kill multitrain a
        neuro-flow kill ALL
    """,
)
@click.argument("job_id", metavar="JOB", shell_complete=offer("jobs_or_all"))
@click.argument("suffix", required=False, shell_complete=offer("suffixes"))
@json_option("Print one JSON document: each job, its id, and why it cannot be stopped.")
@pass_context
def command(context: FlowContext, job_id: str, suffix: str | None, as_json: bool) -> int:
    """Stop JOB, and wait for its end; of a multi-job, the one with SUFFIX. ALL: every one."""
    workflow, live = context.workflow, context.live
    if job_id == ALL:
        if suffix is not None:
            raise click.UsageError("Suffix is not supported when killing ALL jobs")
        active = context.run(live.active())
        named = [(_name(workflow, job), job) for job in reversed(active)]
        return _kill(context, named, as_json=as_json)
    check_job(workflow, job_id, suffix)
    if suffix is None and workflow.is_multi(job_id):
        raise click.UsageError(f"Please provide a suffix for multi-job {job_id}")
    found = context.run(live.find(job_id, suffix))
    name = label(job_id, suffix)
    if found is None or found.status.is_finished:
        known = found.id if found is not None else None
        said = document([kill_document(name, known, killed=False)]) if as_json else None
        context.out.print(said or f"Job {name} is not running")
        return 0
    return _kill(context, [(name, found)], as_json=as_json)


def _name(workflow: LiveWorkflow, job: Job) -> str:
    for job_id in workflow.job_ids:
        if set(workflow.tags_of(job_id)) <= set(job.tags):
            return label(job_id, next(iter(suffixes(job)), None))
    return job.id  # The file does not have it any more.


def _kill(context: FlowContext, jobs: list[tuple[str, Job]], *, as_json: bool) -> int:
    from neuro.domain.errors import NotFound, NotPermitted

    client, code = context.client, 0
    told = []
    left: list[tuple[str, str]] = []
    for name, job in jobs:
        try:
            notices = context.run(client.jobs.kill(job.id))
            for notice in notices:  # Its end may be days away: nobody waits for that.
                context.out.note(notice)
            if not notices:
                left.append((job.id, name))
            told.append(kill_document(name, job.id, killed=True, notices=notices))
        except (NotFound, NotPermitted) as error:
            code = 1
            told.append(kill_document(name, job.id, killed=False, error=error))
            context.out.error(f"Cannot kill job {name}: {error}")
    for start in range(0, len(left), TOGETHER):
        context.run(_wait(context, dict(left[start : start + TOGETHER]), quiet=as_json))
    if as_json:
        context.out.print(document(told))
    return code


async def _wait(context: FlowContext, left: dict[str, str], *, quiet: bool) -> None:
    """Say of each of these jobs (names by ids) that it is over, as soon as it is; or only wait."""
    from contextlib import aclosing

    while left:
        async with aclosing(context.client.jobs.events(ids=[*left])) as events:
            async for event in events:
                job = event.job
                if job is not None and job.status.is_finished and job.id in left:
                    name = left.pop(job.id)
                    if not quiet:
                        context.out.print(f"Killed job {name}")
                        context.out.flush()
                if not left:
                    return
