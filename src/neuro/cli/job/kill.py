"""``neuro kill``: stop jobs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.domain.errors import Damaged, InvalidInput, NotFound, NotPermitted, Unavailable
from neuro.domain.jobs import JobStatus


@click.command(
    "kill",
    cls=Command,
    examples="""
        neuro kill my-job
        neuro kill my-job job-fb835ab0-5285-4360-8ee1-880a8ebf824c
        neuro kill --json my-job | jq -r '.[].id'
    """,
)
@click.argument("jobs", nargs=-1, required=True)
@json_option("Print one JSON document: each of JOBS, its id, and why it cannot be stopped.")
@pass_context
def command(context: Context, jobs: tuple[str, ...], as_json: bool) -> int:
    """Stop JOBS, by name or id. Prints each one that it stops.

    A job that is over already is no failure. One whose machine is away ends when that is back.
    """
    client, failed = context.client, False
    told: list[dict[str, object]] = []
    for job in jobs:
        job_id = None
        try:
            job_id = _id_of(context, job)
            if (ended := _ended(context, job_id)) is not None:
                context.out.note(f"Job {job} is over already ({ended.value}).")
                told.append(kill_document(job, job_id, killed=False))
                continue
            notices = context.run(client.jobs.kill(job_id))
        except (InvalidInput, NotFound, NotPermitted) as error:
            failed = True
            context.out.say(context.out.style(f"Cannot kill job {job}: {error}", fg="red"))
            told.append(kill_document(job, job_id, killed=False, error=error))
        else:
            told.append(kill_document(job, job_id, killed=True, notices=notices))
            for notice in notices:
                context.out.note(notice)
            if not as_json:
                context.out.print(job_id)
    if as_json:
        context.out.print(document(told))
    return 1 if failed else 0


def _id_of(context: Context, job: str) -> str:
    try:
        return context.run(context.client.jobs.resolve(job))
    except Damaged:  # The server finds it by its name too.
        return job


def _ended(context: Context, job_id: str) -> JobStatus | None:
    try:
        status = context.run(context.client.jobs.get(job_id)).status
    except (Damaged, Unavailable):  # Jobs can be stopped where their records cannot be read.
        return None
    return status if status.is_finished else None


def kill_document(
    job: str,
    job_id: str | None,
    *,
    killed: bool,
    error: Exception | None = None,
    notices: Sequence[str] = (),
) -> dict[str, object]:
    """What programs are told of a job, named ``job``, that was to be stopped."""
    document = {"job": job, "id": job_id, "killed": killed, "error": str(error) if error else None}
    return document | ({"notices": list(notices)} if notices else {})
