"""``neuro storage glob``: list what matches wildcards."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.storage.items import collect
from neuro.cli.storage.looks import as_told
from neuro.domain.errors import NotFound
from neuro.domain.uris import ResourceURI, full_text

# Requests that are under way at once.
_TOGETHER = 8


@click.command(
    "glob",
    cls=Command,
    examples="""
        neuro storage glob 'storage:digits/**/*.png'
        neuro storage glob --json 'storage:runs/*/loss.csv'   # with sizes and times
    """,
)
@click.argument("patterns", nargs=-1)
@json_option("Print one JSON document, with the fields of `neuro ls --json`.")
@pass_context
def command(context: Context, patterns: tuple[str, ...], as_json: bool) -> None:
    """Print the URIs that match PATTERNS: *, ?, [a-z], and ** for any folders."""
    matches: list[ResourceURI] = []
    for pattern in patterns:
        found = context.run(collect(context.client.storage.glob(pattern)))
        matches += found
        if not as_json:
            for uri in found:
                context.out.print(full_text(uri))
    if as_json:
        context.out.print(document(context.run(_told(context, matches))))


async def _told(context: Context, uris: list[ResourceURI]) -> list[dict[str, object]]:
    storage = context.client.storage

    async def one(uri: ResourceURI) -> list[dict[str, object]]:
        try:
            return [as_told(await storage.stat(uri), uri)]
        except NotFound:
            return []  # It was removed in the meantime.

    entries = await context.client.transport.gather([one(it) for it in uris], limit=_TOGETHER)
    return [entry for found in entries for entry in found]
