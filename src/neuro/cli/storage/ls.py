"""``neuro ls``: list folders of the storage."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.storage.items import Items, collect
from neuro.cli.storage.looks import SORTS, as_told, in_columns, is_shown, long_lines, ordered
from neuro.domain.printable import printable
from neuro.domain.storage import FileStatus, FileType


@click.command(
    "ls",
    cls=Command,
    examples="""
        neuro ls                      # your home
        neuro ls -l storage:digits
        neuro ls -lh --sort size storage:digits/results
    """,
)
@click.argument("paths", nargs=-1)
@click.option(
    "-d", "--directory", is_flag=True, help="Show folders themselves, not what is in them."
)
@click.option("-l", "long", is_flag=True, help="Show kind, permission, size and time.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="With -l: sizes as 1.5K.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show names that begin with a dot.")
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="name",
    show_default=True,
    help="By name, or the largest or newest first.",
)
@json_option("Print one JSON document, for programs.")
@pass_context
def command(
    context: Context,
    paths: tuple[str, ...],
    directory: bool,
    long: bool,
    human: bool,
    everything: bool,
    sort: str,
    as_json: bool,
) -> int:
    """List the contents of PATHS (storage: by default)."""
    storage, out = context.client.storage, context.out
    items = Items(context, paths)
    told: list[dict[str, object]] = []
    uris = [(text, storage.uri(text)) for text in paths or ("storage:",)]

    def show(entries: list[FileStatus]) -> None:
        chosen = ordered(entries, sort)
        lines = (
            long_lines(chosen, human, out) if long else in_columns(chosen, terminal_width(), out)
        )
        for line in lines:
            out.print(line)

    for number, (text, uri) in enumerate(uris):
        with items.doing(f"access '{text}'"):
            status = context.run(storage.stat(uri))
            if directory or status.type is not FileType.DIRECTORY:
                from msgspec.structs import replace

                if as_json:
                    told.append(as_told(status, uri))
                else:
                    show([replace(status, path=text)])
                continue
            entries = context.run(collect(storage.list(uri)))
            if as_json:
                chosen = ordered([it for it in entries if is_shown(it, everything)], sort)
                told += [as_told(entry, uri.child(entry.path)) for entry in chosen]
                continue
            if len(uris) > 1:
                out.print(f"{chr(10) if number else ''}{printable(text)}:")
            show([entry for entry in entries if is_shown(entry, everything)])
    if as_json:
        out.print(document(told))
    return items.exit_code
