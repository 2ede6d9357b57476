"""``neuro mv``: move and rename, inside the storage."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.storage.items import Items
from neuro.cli.storage.operands import (
    Remote,
    expand_uris,
    goes_into,
    is_folder,
    missing_folder,
    parse_operands,
)
from neuro.domain.errors import NotFound, StorageFault
from neuro.domain.printable import printable


@click.command(
    "mv",
    cls=Command,
    examples="""
        neuro mv storage:digits storage:numbers
        neuro mv 'storage:runs/*' storage:archive
    """,
)
@click.argument("paths", nargs=-1, metavar="[SOURCES]... [DESTINATION]")
@click.option("--glob/--no-glob", default=True, help="Expand wildcards.", show_default=True)
@click.option(
    "-t", "--target-directory", metavar="DIRECTORY", help="Move all SOURCES into DIRECTORY."
)
@click.option(
    "-T",
    "--no-target-directory",
    is_flag=True,
    help="DESTINATION is the new name, never a folder to move into.",
)
@pass_context
def command(
    context: Context,
    paths: tuple[str, ...],
    glob: bool,
    target_directory: str | None,
    no_target_directory: bool,
) -> int:
    """Move SOURCES into the folder DESTINATION, or rename one of them."""
    operands = parse_operands(paths, target_directory, no_target_directory)
    storage = context.client.storage
    items = Items(context, operands.sources)
    destination = Remote(storage.uri(operands.destination))
    sources = [Remote(uri) for uri in expand_uris(context, operands.sources, items, glob=glob)]
    into = goes_into(context, operands, destination)
    if into and len(sources) > 1 and not is_folder(context, destination):
        items.failed(f"move to '{destination}'", NotFound("it is not a folder."))
        return items.exit_code
    for source in sources:
        target = destination.child(source.name) if into else destination
        with items.doing(f"move '{source}' to '{target}'"):
            try:
                context.run(storage.rename(source.uri, target.uri))
            except NotFound as error:
                raise _missing(context, source, target) or error from None
            except StorageFault as fault:
                if fault.errno == "EINVAL" and _is_below(target, source):
                    raise StorageFault("EINVAL", "a folder cannot go into itself.") from None
                raise
            if context.out.verbose:
                context.out.print(f"{printable(str(source))} -> {printable(str(target))}")
    return items.exit_code


def _is_below(place: Remote, folder: Remote) -> bool:
    outer = folder.uri.segments
    return place.uri.host == folder.uri.host and place.uri.segments[: len(outer)] == outer


def _missing(context: Context, source: Remote, target: Remote) -> NotFound | None:
    """Which of the two is not there, and what to do; None where both are by now."""
    if not context.run(context.client.storage.exists(source.uri)):
        return NotFound(f"{source} does not exist.")
    return missing_folder(context, target.uri)
