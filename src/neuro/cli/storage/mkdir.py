"""``neuro mkdir``: make folders."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.storage.items import Items
from neuro.domain.errors import NotFound
from neuro.domain.printable import printable


@click.command("mkdir", cls=Command, examples="neuro mkdir -p storage:digits/results")
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "-p", "--parents", is_flag=True, help="Make the folders above too; no error if it exists."
)
@pass_context
def command(context: Context, paths: tuple[str, ...], parents: bool) -> int:
    """Make the folders PATHS."""
    storage = context.client.storage
    items = Items(context)
    for text, uri in [(text, storage.uri(text)) for text in paths]:
        with items.doing(f"create directory '{text}'"):
            try:
                context.run(storage.mkdir(uri, parents=parents, exist_ok=parents))
            except NotFound as error:
                raise NotFound(f"{error} With -p the folders above are made too.") from None
            if context.out.verbose:
                context.out.print(f"created directory {printable(str(uri))}")
    return items.exit_code
