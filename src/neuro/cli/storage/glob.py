"""``neuro storage glob``: list what matches wildcards."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.storage.items import collect
from neuro.domain.uris import full_text


@click.command("glob", cls=Command, examples="neuro storage glob 'storage:digits/**/*.png'")
@click.argument("patterns", nargs=-1)
@pass_context
def command(context: Context, patterns: tuple[str, ...]) -> None:
    """Print the URIs that match PATTERNS: *, ?, [a-z], and ** for any folders."""
    for pattern in patterns:
        for uri in context.run(collect(context.client.storage.glob(pattern))):
            context.out.print(full_text(uri))
