"""``neuro cp``: copy files between this machine and the storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.storage.items import Items
from neuro.cli.storage.operands import (
    STDIN,
    STDOUT,
    Local,
    Operands,
    Place,
    Remote,
    expand,
    goes_into,
    is_folder,
    missing_folder,
    parse_operands,
    parse_place,
    with_streams,
)
from neuro.client.storage import Outcome
from neuro.client.storage.filters import Filter, Rule
from neuro.domain.errors import NotFound, StorageFault
from neuro.domain.printable import printable

if TYPE_CHECKING:
    from neuro.cli.storage.progress import CommandProgress


class CopyCommand(Command):
    """Keeps the order in which --exclude and --include were given: the last match decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given = {name: iter(values.get(name, ())) for name in ("exclude", "include")}
        ctx.meta["neuro.filters"] = [
            Rule(next(given[param.name]), exclude=param.name == "exclude")
            for param in order
            if param.name in given
        ]
        return super().parse_args(ctx, args)


class Copy(NamedTuple):
    """How to copy."""

    recursive: bool
    update: bool
    resume: bool
    keep: Filter
    ignore_files: Sequence[str]
    keep_newer: bool


@click.command(
    "cp",
    cls=CopyCommand,
    examples="""
        neuro cp data.csv storage:                      # into your home
        neuro cp -r ./data storage:digits/data          # a folder
        neuro cp -r storage:digits/results .            # and back
        neuro cp --continue big.tar storage:            # continue a broken copy
        neuro cp -r --exclude '*.tmp' . storage:code    # leave some out
        neuro cp 'storage:logs/**/*.txt' ./logs
        neuro cp storage:results.csv - | head           # to standard output
    """,
)
@click.argument("paths", nargs=-1, metavar="[SOURCES]... [DESTINATION]")
@click.option("-r", "--recursive", is_flag=True, help="Copy folders with everything in them.")
@click.option("--glob/--no-glob", default=True, help="Expand wildcards in URIs.", show_default=True)
@click.option(
    "-t", "--target-directory", metavar="DIRECTORY", help="Copy all SOURCES into DIRECTORY."
)
@click.option(
    "-T",
    "--no-target-directory",
    is_flag=True,
    help="DESTINATION is the new name, never a folder to copy into.",
)
@click.option("-u", "--update", is_flag=True, help="Copy only what is newer, or has another size.")
@click.option("--keep-newer", is_flag=True, hidden=True)  # For `neuro-flow download`.
@click.option("--continue", "resume", is_flag=True, help="Continue files that were copied in part.")
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches, as .gitignore."
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Do not leave out what matches.")
@click.option(
    "--exclude-from-files",
    metavar="FILES",
    help="Names of files with patterns, for uploads; '.neuroignore' unless configured.",
)
@click.option(
    "-p/-P", "--progress/--no-progress", default=True, help="Show progress on a terminal."
)
@click.option("--summary", is_flag=True, help="Print at the end what was copied.")
@pass_context
def command(
    context: Context,
    /,
    paths: tuple[str, ...],
    glob: bool,
    target_directory: str | None,
    no_target_directory: bool,
    progress: bool,
    exclude_from_files: str | None,
    summary: bool,
    **options: Any,
) -> int:
    """Copy files and folders: one of SOURCES and DESTINATION is in the storage.

    If DESTINATION is a folder or ends with a slash, SOURCES are copied into it. A file appears on
    the other side once it is complete. `-` is standard input or output; a file of that name is ./-.
    """
    operands = with_streams(parse_operands(paths, target_directory, no_target_directory))
    piped = operands.destination == STDOUT
    if piped:
        context.out.leave_stdout_to_job()
    config = context.user_config
    defaults = [Rule(p.removeprefix("!"), not p.startswith("!")) for p in config.cp_exclude]
    given = click.get_current_context().meta["neuro.filters"]
    copy = Copy(
        recursive=options["recursive"],
        update=options["update"],
        resume=options["resume"],
        keep=Filter([*defaults, *given]),
        ignore_files=(
            config.cp_exclude_from_files
            if exclude_from_files is None
            else exclude_from_files.split()
        ),
        keep_newer=options["keep_newer"],
    )
    items = Items(context, operands.sources)
    sources = expand(context, operands.sources, items, glob=glob)
    from neuro.cli.storage.progress import showing

    try:
        with showing(context, items, wanted=progress and not piped) as shown:
            _copy_all(context, items, operands, sources, copy, shown)
    except KeyboardInterrupt:
        if not piped:
            context.out.note("\nStopped: the same command with --continue goes on where it was.")
        raise
    if summary:
        context.out.print(shown.summary(operands.destination))
    elif copy.recursive and (items.failures or context.out.is_terminal):
        context.out.note(shown.summary(operands.destination))
    return items.exit_code


def _copy_all(
    context: Context,
    items: Items,
    operands: Operands,
    sources: list[Place],
    copy: Copy,
    progress: CommandProgress,
) -> None:
    destination = parse_place(context, operands.destination)
    for source in sources:
        if isinstance(source, Local) == isinstance(destination, Local):
            where = "this machine" if isinstance(source, Local) else "the storage"
            raise click.UsageError(f"Both {source} and {destination} are on {where}.")
    into = goes_into(context, operands, destination)
    if into and STDIN in operands.sources:
        raise click.UsageError(f"Standard input has no name: write one behind {destination}.")
    several = len(sources) > 1
    if into and several and not is_folder(context, destination):
        items.failed(f"copy to '{operands.destination}'", NotFound("it is not a folder."))
        return
    if into and several and isinstance(destination, Remote):
        sources = _copy_files(context, items, sources, destination, copy, progress)
    for source in sources:
        target = destination.child(source.name) if into else destination
        with items.doing(f"copy '{source}' to '{target}'"):
            _copy_one(context, source, target, copy, progress)


def _copy_files(
    context: Context,
    items: Items,
    sources: list[Place],
    destination: Remote,
    copy: Copy,
    progress: CommandProgress,
) -> list[Place]:
    """Send the plain files together, in as few requests as it takes; returns the others."""
    files = [it for it in sources if isinstance(it, Local) and not is_folder(context, it)]
    with items.doing(f"copy to '{destination}'"):
        outcome = context.run(
            context.client.storage.upload_files(
                [file.path for file in files],
                destination.uri,
                update=copy.update,
                resume=copy.resume,
                progress=progress,
            )
        )
        progress.done(outcome)
    return [source for source in sources if source not in files]


def _copy_one(
    context: Context, source: Place, target: Place, copy: Copy, progress: CommandProgress
) -> None:
    storage, run = context.client.storage, context.run
    recursive = is_folder(context, source)
    if recursive and not copy.recursive:
        raise StorageFault("EISDIR", "it is a folder: copy it with -r.")
    how: dict[str, Any] = {"update": copy.update, "resume": copy.resume, "progress": progress}
    call: Any
    if isinstance(source, Local) and isinstance(target, Remote):
        if recursive:
            call = storage.upload_tree(
                source.path, target.uri, keep=copy.keep, ignore_files=copy.ignore_files, **how
            )
        else:
            call = storage.upload_file(source.path, target.uri, **how)
    elif isinstance(source, Remote) and isinstance(target, Local):
        if recursive:
            call = storage.download_tree(
                source.uri, target.path, keep=copy.keep, keep_newer=copy.keep_newer, **how
            )
        else:
            call = storage.download_file(source.uri, target.path, **how)
    try:
        outcome: Outcome | bool = run(call)
    except NotFound as error:
        if recursive or isinstance(target, Local):
            raise
        raise missing_folder(context, target.uri) or error from None
    progress.done(outcome)
    if outcome is False:
        context.out.info(f"{printable(str(source))} is up to date")
