"""Names of a command line: looked up in the workflow, and offered by shells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import click

from neuro.flow.cli.failures import Failed

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from neuro.domain.jobs import Job
    from neuro.flow.cli.context import FlowContext
    from neuro.flow.evaluate.jobs import LiveWorkflow

T = TypeVar("T")
ALL = "ALL"


def unknown(what: str, name: str, known: Iterable[str]) -> Failed:
    """The sentences for a name that the workflow does not have."""
    from neuro.domain.problems import nearest

    names = sorted(known)
    lines = [f"Unknown {what} {name}", f"Existing {what}s: {', '.join(names) or 'none'}"]
    if hint := nearest(name, names):
        lines.append(hint)
    return Failed("\n".join(lines))


def check_runnable(context: FlowContext, job_id: str, suffix: str | None) -> None:
    """``check_job``, with a hint where a batch is meant."""
    try:
        check_job(context.workflow, job_id, suffix)
    except Failed as error:
        from neuro.flow.cli.bake_names import batch_names

        if job_id not in batch_names(context.workspace):
            raise
        raise Failed(
            f"There is no job {job_id}, but a batch: `neuro-flow bake {job_id}` runs it."
        ) from error


def check_job(workflow: LiveWorkflow, job_id: str, suffix: str | None) -> None:
    """Raise where there is no such job, or where it takes no suffix."""
    if job_id not in workflow.job_ids:
        raise unknown("job", job_id, workflow.job_ids)
    if suffix is not None and not workflow.is_multi(job_id):
        raise click.UsageError(f"Job {job_id} is not a multi-job: it has no suffixes")


def one_or_all(what: str, name: str, known: Mapping[str, T]) -> list[T]:
    """The one with this name, or all. Raises Failed."""
    if name == ALL:
        return list(known.values())
    if name not in known:
        raise unknown(what, name, known)
    return [known[name]]


def find_job(context: FlowContext, job_id: str, suffix: str | None) -> Job:
    """The job on the platform. Raises Failed where it is not there."""
    from neuro.flow.live import label

    workflow = context.workflow
    check_job(workflow, job_id, suffix)
    if suffix is None and workflow.is_multi(job_id):
        raise click.UsageError(f"Please provide a suffix for multi-job {job_id}")
    found = context.run(context.live.find(job_id, suffix))
    if found is None:
        raise Failed(f"Job {label(job_id, suffix)} is not running")
    return found


def offer(
    what: str,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Complete a parameter with a function of ``neuro.flow.cli.candidates``."""

    def complete(
        ctx: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from neuro.flow.cli import candidates

        return candidates.offered(what, ctx, incomplete)

    return complete
