"""``neuro rm``: remove files and folders."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.storage.items import Items
from neuro.cli.storage.operands import expand_uris
from neuro.domain.errors import StorageFault
from neuro.domain.printable import printable
from neuro.domain.uris import ResourceURI


@click.command(
    "rm",
    cls=Command,
    examples="""
        neuro rm storage:digits/old.csv
        neuro rm -r storage:digits/results
        neuro rm 'storage:digits/*.tmp'
    """,
)
@click.argument("paths", nargs=-1, required=True)
@click.option("--glob/--no-glob", default=True, help="Expand wildcards.", show_default=True)
@click.option(
    "-p/-P", "--progress/--no-progress", default=None, help="Count what is removed, on a terminal."
)
@click.option("-r", "--recursive", is_flag=True, help="Remove folders with everything in them.")
@pass_context
def command(
    context: Context, paths: tuple[str, ...], glob: bool, progress: bool | None, recursive: bool
) -> int:
    """Remove PATHS."""
    items = Items(context, paths)
    counts = context.out.is_terminal if progress is None else progress
    counts = counts and not context.out.quiet and not context.out.verbose
    for uri in expand_uris(context, paths, items, glob=glob):
        with items.doing(f"remove '{uri}'"):
            context.run(_remove(context, uri, recursive, counts))
    return items.exit_code


async def _remove(context: Context, uri: ResourceURI, recursive: bool, counts: bool) -> None:
    out = context.out
    gone = 0
    try:
        async for removed in context.client.storage.remove(uri, recursive=recursive):
            gone += 1
            if out.verbose:
                out.print(f"removed {uri.scheme}://{uri.host}{printable(removed.path)}")
            elif counts and gone % 500 == 0:
                click.echo(f"\rremoved {gone}", nl=False, err=True)
    except StorageFault as fault:
        if fault.errno == "EISDIR" and not recursive:
            raise StorageFault("EISDIR", "Target is a directory: remove it with -r.") from None
        raise
    finally:
        if counts and gone >= 500:
            click.echo("\r\x1b[K", nl=False, err=True)
