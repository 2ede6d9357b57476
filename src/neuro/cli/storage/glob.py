"""``neuro storage glob``: list what matches wildcards."""

from __future__ import annotations

from contextlib import suppress

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.storage.items import collect
from neuro.cli.storage.looks import as_told
from neuro.client.storage.globs import Match
from neuro.domain.errors import NotFound
from neuro.domain.uris import full_text


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
    told: list[dict[str, object]] = []
    for pattern in patterns:
        found = context.run(collect(context.client.storage.glob_entries(pattern)))
        if as_json:
            told += context.run(_told(context, found))
            continue
        for match in found:
            context.out.print(full_text(match.uri))
    if as_json:
        context.out.print(document(told))


async def _told(context: Context, matches: list[Match]) -> list[dict[str, object]]:
    told = []
    for it in matches:
        with suppress(NotFound):  # It was removed in the meantime.
            # Nothing listed the folder that a pattern begins in.
            entry = it.entry or await context.client.storage.stat(it.uri)
            told.append(as_told(entry, it.uri))
    return told
