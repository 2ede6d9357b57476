"""What shell completion offers: jobs, suffixes, parameters, volumes, images, projects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.names import ALL

Offer = Callable[[FlowContext, click.Context], Iterable[tuple[str, str | None]]]


def _jobs(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return [(job_id, None) for job_id in context.workflow.job_ids]


def _jobs_or_all(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return [*_jobs(context, ctx), (ALL, None)]


def _suffixes(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    rows = context.run(context.live.rows())
    wanted = ctx.params.get("job_id")
    return [
        (row.suffix, row.job.status.value if row.job else None)
        for row in rows
        if row.job_id == wanted and row.suffix is not None
    ]


def _params(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    job_id = ctx.params.get("job_id")
    workflow = context.workflow
    # Options stand before the job: then any job's may be meant.
    jobs = [job_id] if job_id in workflow.job_ids else workflow.job_ids
    found: dict[str, str | None] = {}
    for job in jobs:
        for name, default in workflow.params_of(job).items():
            found.setdefault(name, default)
    return sorted(found.items())


def _volumes(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    volumes = context.workflow.volumes.values()
    return [*((it.id, it.remote) for it in volumes if it.local is not None), (ALL, None)]


def _images(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    images = context.workflow.images.values()
    return [*((it.id, it.ref) for it in images if it.context is not None), (ALL, None)]


def _projects(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return [(it.name, it.owner) for it in context.run(context.client.flows.projects())]


_OFFERS: Mapping[str, Offer] = {
    "jobs": _jobs,
    "jobs_or_all": _jobs_or_all,
    "suffixes": _suffixes,
    "params": _params,
    "volumes": _volumes,
    "images": _images,
    "projects": _projects,
}


def offered(what: str, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The candidates of one kind that begin as typed."""
    given = ctx.find_root().params
    context = FlowContext.of(
        config=given.get("config"), verbose=0, quiet=0, color="no", show_traceback=False
    )
    context.timeout = 5.0
    try:
        found = [*_OFFERS[what](context, ctx)]
    except Exception:  # A shell waits for words, not for reasons.
        return []
    return [CompletionItem(name, help=text) for name, text in found if name.startswith(incomplete)]
