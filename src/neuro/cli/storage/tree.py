"""``neuro storage tree``: show a folder as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.storage.items import collect
from neuro.cli.storage.looks import SORTS, as_told, is_shown, name_text, ordered, size_text
from neuro.domain.errors import StorageFault
from neuro.domain.printable import printable
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import ResourceURI

SIZE_WIDTH = 10


class Node(NamedTuple):
    """One line of the tree: the lines in front of it, and the entry."""

    indent: str
    entry: FileStatus


@click.command("tree", cls=Command, examples="neuro storage tree -sh storage:digits")
@click.argument("path", default="storage:")
@click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes as 1.5K.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show names that begin with a dot.")
@click.option("-s", "--size", is_flag=True, help="Show the size of each file.")
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="Order.")
@json_option('Print one JSON document: a folder has its entries in "contents".')
@pass_context
def command(
    context: Context,
    path: str,
    human: bool,
    everything: bool,
    size: bool,
    sort: str,
    as_json: bool,
) -> int:
    """Show what is in PATH (storage: by default), and in its folders, as a tree."""
    storage, out = context.client.storage, context.out
    top = storage.uri(path)
    status = context.run(storage.stat(top))
    if status.type is not FileType.DIRECTORY:
        raise StorageFault("ENOTDIR", f"'{path}' is not a folder.")
    if as_json:
        out.print(document(_told(context, top, status, everything, sort)))
        return 0
    out.print(printable(path))
    folders = files = 0
    for node in _nodes(context, top, "", everything, sort):
        is_folder = node.entry.type is FileType.DIRECTORY
        folders += is_folder
        files += not is_folder
        shown = ""
        if size or human:
            shown = f"[{size_text(node.entry.length, human):>{SIZE_WIDTH}}]  "
        out.print(f"{node.indent}{shown}{name_text(node.entry, out)}")
    out.print(f"\n{folders} directories, {files} files")
    return 0


def _entries(
    context: Context, folder: ResourceURI, everything: bool, sort: str
) -> list[FileStatus]:
    found = context.run(collect(context.client.storage.list(folder)))
    return ordered([entry for entry in found if is_shown(entry, everything)], sort)


def _told(
    context: Context, uri: ResourceURI, entry: FileStatus, everything: bool, sort: str
) -> dict[str, Any]:
    told: dict[str, Any] = as_told(entry, uri)
    if entry.type is FileType.DIRECTORY:
        told["contents"] = [
            _told(context, uri.child(below.path), below, everything, sort)
            for below in _entries(context, uri, everything, sort)
        ]
    return told


def _nodes(
    context: Context, folder: ResourceURI, indent: str, everything: bool, sort: str
) -> Iterator[Node]:
    entries = _entries(context, folder, everything, sort)
    for number, entry in enumerate(entries, start=1):
        is_last = number == len(entries)
        yield Node(indent + ("└── " if is_last else "├── "), entry)
        if entry.type is FileType.DIRECTORY:
            below = indent + ("    " if is_last else "│   ")
            yield from _nodes(context, folder.child(entry.path), below, everything, sort)
