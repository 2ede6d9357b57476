"""What shell completion offers: jobs, presets, clusters, images, storage paths. Asks the server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from neuro.cli.context import Context
from neuro.domain.jobs import ACTIVE, Job, JobFilter, JobStatus
from neuro.domain.uris import ResourceURI, complete_uri, quoted_name, quoted_path

T = TypeVar("T")

LIMIT = 500
Offer = Callable[[Context, str], list[CompletionItem]]


def jobs(context: Context, incomplete: str) -> list[CompletionItem]:
    """Active jobs, by name and by id."""
    return _jobs(context, incomplete, sorted(ACTIVE))


def all_jobs(context: Context, incomplete: str) -> list[CompletionItem]:
    """The newest jobs, by name and by id: those that are over too."""
    return _jobs(context, incomplete, [])


def _jobs(context: Context, incomplete: str, statuses: list[JobStatus]) -> list[CompletionItem]:
    limit = int(os.environ.get("NEURO_CLI_JOB_AUTOCOMPLETE_LIMIT", LIMIT))
    prefix = "job:" if incomplete.startswith("job:") else ""
    found = context.run(_newest(context, statuses, limit))
    names = {job.name: job.id for job in reversed(found) if job.name}
    items = [CompletionItem(prefix + name, help=names[name]) for name in reversed(names)]
    items += [CompletionItem(prefix + job.id, help=job.name) for job in found]
    return [item for item in items if str(item.value).startswith(incomplete)]


async def _newest(context: Context, statuses: list[JobStatus], limit: int) -> list[Job]:
    query = JobFilter(
        status=statuses,
        owner=[context.client.user],
        cluster_name=context.client.cluster,
        reverse=True,
        limit=limit,
    )
    async with aclosing(context.client.jobs.list(query)) as found:
        return [job async for job in found]


def presets(context: Context, incomplete: str) -> list[CompletionItem]:
    """The current cluster's presets, as last seen."""
    offered = context.cluster.resource_presets
    return [CompletionItem(item.name) for item in offered if item.name.startswith(incomplete)]


def images(context: Context, incomplete: str) -> list[CompletionItem]:
    """Images of the platform, and tags behind the name of one."""
    if not incomplete.startswith("image:"):
        return [CompletionItem("image:")] if "image:".startswith(incomplete) else []
    client = context.client
    name, colon, _ = incomplete.removeprefix("image:").rpartition(":")
    if colon:
        one = client.images.image(name)
        found = [f"image:{name}:{tag}" for tag in context.run(_all(client.images.tags(one)))]
    else:
        found = [
            str(uri) if incomplete.startswith("image://") else _short(uri, incomplete, client.user)
            for uri in context.run(_all(client.images.list()))
        ]
    return [CompletionItem(text) for text in found if text.startswith(incomplete)]


def _short(uri: ResourceURI, incomplete: str, user: str) -> str:
    """An image's name as it is being written: with its owner behind a slash, or one's own."""
    owner, *rest = uri.segments
    with_owner = owner != user or incomplete.startswith("image:/")
    return f"image:/{'/'.join(uri.segments)}" if with_owner else f"image:{'/'.join(rest)}"


async def _all(things: AsyncGenerator[T, None]) -> list[T]:
    found: list[T] = []
    async with aclosing(things):
        async for thing in things:
            found.append(thing)
            if len(found) == LIMIT:
                break
    return found


def clusters(context: Context, incomplete: str) -> list[CompletionItem]:
    """Clusters of all servers logged in to."""
    names = {c.name for account in context.accounts.accounts for c in account.config.clusters}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def paths(context: Context, incomplete: str) -> list[CompletionItem]:
    """Storage paths below what is typed; anything else may be a local file."""
    if not incomplete.startswith("storage:"):
        items = [CompletionItem(incomplete, type="file")]
        if "storage:".startswith(incomplete):
            items.insert(0, CompletionItem("storage:"))
        return items
    slash = max(incomplete.rfind("/"), incomplete.find(":")) + 1
    folder, beginning = incomplete[:slash], incomplete[slash:]
    client = context.client
    uri = complete_uri(folder, "storage", cluster=client.cluster, user=client.user)
    entries = context.run(_entries(context, quoted_path(uri)))
    return [
        CompletionItem(folder + quoted_name(name) + ("/" if is_folder else ""))
        for name, is_folder in entries
        if quoted_name(name).startswith(beginning)
    ]


def volumes(context: Context, incomplete: str) -> list[CompletionItem]:
    """The storage part of a volume, up to the colon before its path in the job."""
    if not incomplete.startswith("storage:"):
        return [CompletionItem("storage:")] if "storage:".startswith(incomplete) else []
    if ":" in incomplete.removeprefix("storage:").removeprefix("//"):
        return []
    return paths(context, incomplete)


def topics(context: Context, incomplete: str) -> list[CompletionItem]:
    """What ``neuro help`` tells of: commands and topics."""
    from neuro.cli.main import root
    from neuro.cli.topics import TEXTS

    tree = root()
    known = [*tree.list_commands(click.Context(tree)), *TEXTS]
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


async def _entries(context: Context, path: str) -> list[tuple[str, bool]]:
    from neuro.client.messages import each
    from neuro.domain.storage import FileStatusEnvelope, FileType

    params = [("op", "LISTSTATUS")]
    entries = []
    async for listed in each(
        context.client.transport, f"/storage{path}", params, FileStatusEnvelope
    ):
        status = listed.FileStatus
        entries.append((status.path, status.type is FileType.DIRECTORY))
    return sorted(entries)


_BY_PARAMETER: dict[str, Offer] = {
    "job": jobs,
    "jobs": jobs,
    "preset": presets,
    "volumes": volumes,
    "words": topics,
    "image": images,
    "images": images,
    "remote": images,
    "cluster": clusters,
    "cluster_name": clusters,
}


# Commands that have something to say of a job that is over.
_OF_JOBS_THAT_ARE_OVER = ("logs", "status", "generate-run-command")


def offer_candidates(root: click.Group) -> None:
    """Give every command below ``root`` its candidates when it is loaded."""
    load = root.get_command

    def loaded(ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = load(ctx, cmd_name)
        if isinstance(command, click.Group):
            offer_candidates(command)
        elif command is not None:
            for parameter in command.params:
                _equip(parameter, over=cmd_name in _OF_JOBS_THAT_ARE_OVER)
        return command

    root.get_command = loaded  # type: ignore[method-assign]


def _equip(parameter: click.Parameter, *, over: bool = False) -> None:
    offer = _BY_PARAMETER.get(str(parameter.name))
    if offer is jobs and over:
        offer = all_jobs
    if offer is None and isinstance(parameter, click.Argument):
        offer = paths if parameter.name in ("sources", "destination", "paths", "path") else None
    if offer is None:
        return
    given: Offer = offer

    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        try:
            return given(context_of(ctx), incomplete)
        except Exception:  # A shell waits for words, not for reasons.
            return []

    parameter.shell_complete = complete  # type: ignore[method-assign]


def context_of(ctx: click.Context) -> Context:
    """The context of a command line that is still being typed: no callback has run."""
    given = ctx.find_root().params
    return Context.from_options(
        verbose=0,
        quiet=0,
        config_dir=str(given.get("config_dir") or "~/.neuro"),
        color="no",
        network_timeout=5.0,
        show_traceback=False,
        trace=False,
        iso_dates=False,
    )
