"""What shell completion offers: jobs, suffixes, parameters, volumes, images, projects, bakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from neuro.domain.flows import ProjectFilter
from neuro.flow.batch.layers import tasks_in_order
from neuro.flow.cli.bake_names import LAST, batch_names, find_attempt, find_bake, server_project
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.names import ALL

if TYPE_CHECKING:
    from neuro.domain.bakes import Bake

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
    volumes = context.sections.volumes.values()
    return [*((it.id, it.remote) for it in volumes if it.local is not None), (ALL, None)]


def _images(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    images = context.sections.images.values()
    return [*((it.id, it.ref) for it in images if it.context is not None), (ALL, None)]


def _projects(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    # Whoever shares a project shows it to others; its name alone says only one's own.
    own = ProjectFilter(owner=context.account.user)
    return [(it.name, None) for it in context.run(context.client.flows.projects(own))]


def _batches(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return [(name, None) for name in batch_names(context.workspace)]


def _batches_or_all(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return [*_batches(context, ctx), (ALL, None)]


def _batch_params(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    from neuro.flow.evaluate.sections import constant_text
    from neuro.flow.problems import Report
    from neuro.flow.syntax.reader import load_source, read_batch
    from neuro.flow.workspace import flow_file

    # Options stand before the batch: then any one's may be meant.
    given = _given(ctx, "batch")
    found: dict[str, str | None] = {}
    for name in [given] if given else batch_names(context.workspace):
        report = Report()
        path = flow_file(context.workspace.config_dir, name)
        source = load_source(path, report) if path else None
        batch = read_batch(source, report) if source else None
        for param, declared in (batch.params if batch else {}).items():
            found.setdefault(param, constant_text(declared.default))
    return sorted(found.items())


def _bakes(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return _offered_bakes(_recent_bakes(context))


def _open_bakes(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return _offered_bakes([it for it in _recent_bakes(context) if not _is_over(it)])


def _ended_bakes(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return _offered_bakes([it for it in _recent_bakes(context) if _is_over(it)])


def _jobs_and_bakes(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    # A project may have no live.yml, and a person may be offline: the one does without the other.
    found: list[tuple[str, str | None]] = []
    for offer in (_jobs, _bakes):
        try:
            found += offer(context, ctx)
        except Exception:  # noqa: S112
            continue
    return found


def _recent_bakes(context: FlowContext) -> list[Bake]:
    from neuro.domain.bakes import BakeFilter

    project_id = server_project(context)
    if project_id is None:
        return []
    query = BakeFilter(project_id=project_id, reverse=True, fetch_last_attempt=True)
    return context.run(context.client.bakes.list(query))


def _is_over(bake: Bake) -> bool:
    return bake.last_attempt is not None and bake.last_attempt.result.is_finished


def _offered_bakes(bakes: Iterable[Bake]) -> list[tuple[str, str | None]]:
    """Names, each once, before ids; newest first."""
    names: dict[str, str | None] = {}
    ids: list[tuple[str, str | None]] = []
    for bake in bakes:
        status = bake.last_attempt.result.value if bake.last_attempt else None
        if bake.name:
            names.setdefault(bake.name, status)
        ids.append((bake.id, f"{bake.batch}: {status}"))
    return [*names.items(), *ids]


def _attempts(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    bake = _bake_of(context, ctx)
    attempts = context.run(context.client.bakes.attempts(bake.id))
    return [(str(it.number), it.result.value) for it in attempts]


def _tasks(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    """Tasks that have an output to be shown."""
    attempt = find_attempt(context, _bake_of(context, ctx), ctx.params.get("attempt") or LAST)
    tasks = context.run(context.client.bakes.tasks(attempt.id))
    return [(it.yaml_id, it.status.value) for it in tasks if it.raw_id is not None]


def _bake_of(context: FlowContext, ctx: click.Context) -> Bake:
    return find_bake(context, _given(ctx, "bake") or _given(ctx, "job_id") or "")


def _given(ctx: click.Context, name: str) -> str | None:
    """An argument; behind an option whose value is being typed it is left where it stood."""
    found: str | None = ctx.params.get(name)
    return found or next((word for word in ctx.args if not word.startswith("-")), None)


def _batch_tasks(context: FlowContext, ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    """The tasks of the batch's bakes: cached outcomes are theirs."""
    batch = ctx.params.get("batch")
    bakes = [it for it in _recent_bakes(context) if it.batch == batch]
    return [(task, None) for bake in bakes[:1] for task in tasks_in_order(bake.graphs)]


def _scheduled(context: FlowContext, _ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    project_id = server_project(context)
    if project_id is None:
        return []
    found = context.run(context.client.bakes.schedules(project_id))
    return [(it.batch, it.cron) for it in found]


_OFFERS: Mapping[str, Offer] = {
    "jobs": _jobs,
    "jobs_or_all": _jobs_or_all,
    "suffixes": _suffixes,
    "params": _params,
    "volumes": _volumes,
    "images": _images,
    "projects": _projects,
    "batches": _batches,
    "batches_or_all": _batches_or_all,
    "batch_params": _batch_params,
    "batch_tasks": _batch_tasks,
    "bakes": _bakes,
    "open_bakes": _open_bakes,
    "ended_bakes": _ended_bakes,
    "jobs_and_bakes": _jobs_and_bakes,
    "attempts": _attempts,
    "tasks": _tasks,
    "scheduled": _scheduled,
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
