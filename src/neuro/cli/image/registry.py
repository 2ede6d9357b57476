"""``neuro image``: looking at the images of the platform's registry, and removing them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import TypeVar

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Column, Line, Sheet
from neuro.cli.render.times import iso_seconds, local_now
from neuro.cli.render.uris import short_uri
from neuro.domain.errors import InvalidInput
from neuro.domain.images import StoredFile, WhyStored

T = TypeVar("T")


@click.command(
    "ls",
    cls=Command,
    examples="""
        neuro image ls
        neuro image ls -l                        # with the names for Docker
        neuro image ls --owner bob --name '^t'
    """,
)
@click.option("-l", "long", is_flag=True, help="Show the names that Docker knows them by, too.")
@click.option("-o", "--owner", "owners", multiple=True, metavar="USER", help="Only theirs.")
@click.option("-n", "--name", metavar="PATTERN", help="Only those whose name matches.")
@click.option("--full-uri", is_flag=True, help="Print whole URIs.")
@json_option()
@pass_context
def ls(
    context: Context,
    long: bool,
    owners: tuple[str, ...],
    name: str | None,
    full_uri: bool,
    as_json: bool,
) -> None:
    """List the images that you may see.

    PATTERN is a regular expression, for the beginning of a name.
    """
    images, out = context.client.images, context.out
    try:
        wanted = re.compile(name or "")
    except re.error as error:
        raise InvalidInput(f"--name {name!r} is not a regular expression: {error}.") from None
    found = [
        uri
        for uri in context.run(_whole(images.list()))
        if (not owners or uri.owner in owners) and wanted.match("/".join(uri.segments[1:]))
    ]
    if as_json:
        out.print(document([str(uri) for uri in found]))
        return
    client = context.client
    shown = [
        str(uri) if full_uri else short_uri(str(uri), client.cluster, client.user) for uri in found
    ]
    if out.quiet or not long:
        for text in shown:
            out.print(text)
        return
    columns = [Column("IMAGE"), Column("DOCKER")]
    rows = [
        [(Line(text),), (Line(images.host + uri.path),)]
        for text, uri in zip(shown, found, strict=True)
    ]
    sheet = Sheet(columns, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))
    for line in (sheet.header(), *sheet.lines()):
        out.print(line)


@click.command("tags", cls=Command, examples="neuro image tags -l image:trainer")
@click.argument("image")
@click.option("-l", "long", is_flag=True, help="Show how large each one is.")
@json_option()
@pass_context
def tags(context: Context, image: str, long: bool, as_json: bool) -> None:
    """List the tags of IMAGE."""
    images, out = context.client.images, context.out
    one = images.image(image)
    found = context.run(_whole(images.tags(one)))
    if as_json:
        out.print(document(found))
        return
    for tag in found:
        if long:
            size = context.run(images.size(images.image(f"{one.uri}:{tag}")))
            out.print(f"{gnu_size(size):>8}  {tag}")
        else:
            out.print(tag)


@click.command("size", cls=Command, examples="neuro image size image:trainer:v1")
@click.argument("image")
@pass_context
def size(context: Context, image: str) -> None:
    """Show how large IMAGE is: what a pull of all of it takes."""
    images = context.client.images
    context.out.print(gnu_size(context.run(images.size(images.image(image)))))


@click.command("digest", cls=Command, examples="neuro image digest image:trainer:v1")
@click.argument("image")
@pass_context
def digest(context: Context, image: str) -> None:
    """Print the digest of IMAGE."""
    images = context.client.images
    context.out.print(context.run(images.digest(images.image(image))))


@click.command(
    "rm",
    cls=Command,
    examples="""
        neuro image rm image:trainer:v1
        neuro image rm -f image:trainer:v1       # with all its other tags
    """,
)
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "force", is_flag=True, help="Remove all tags of the same image, too.")
@pass_context
def rm(context: Context, images: tuple[str, ...], force: bool) -> None:
    """Remove IMAGES.

    A tag goes alone where the image has others. Layers that nothing needs
    any more are deleted a day later.
    """
    its = context.client.images
    for text in images:
        one = its.image(text)
        context.run(its.remove(one, with_all_tags=force))
        context.out.note(f"Removed {one}.")


@click.command("gc", cls=Command, examples="neuro image gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Show what is on the disk, and delete nothing.")
@json_option("Print one JSON document; sizes are bytes.")
@pass_context
def gc(context: Context, dry_run: bool, as_json: bool) -> None:
    """Show why each layer is on the disk, and what will be deleted; for administrators.

    The server deletes by itself what nothing has needed for a day.
    """
    if not dry_run:
        raise InvalidInput(
            "The server deletes by itself what nothing has needed for a day. To see what that is:"
            " neuro image gc --dry-run"
        )
    out = context.out
    found = context.run(_whole(context.client.images.files()))
    if as_json:
        out.print(document(found))
        return
    for one in found:
        out.print(f"{gnu_size(one.size):>8}  {one.digest or 'an upload':71}  {_why(one)}")
    garbage = sum(one.size for one in found if one.why is WhyStored.GARBAGE)
    total = gnu_size(sum(one.size for one in found))
    out.print(f"{total:>8}  in all, {gnu_size(garbage)} of it garbage")


def _why(one: StoredFile) -> str:
    until = f" until {iso_seconds(one.until, local_now())}" if one.until else ""
    match one.why:
        case WhyStored.NEEDED:
            return f"image:/{one.of} needs it"
        case WhyStored.RECENT:
            return f"no image needs it; kept{until}"
        case WhyStored.UPLOAD:
            return f"to image:/{one.of}, has not ended; kept{until}"
        case WhyStored.GARBAGE:
            return "no image needs it; will be deleted"


async def _whole(things: AsyncGenerator[T, None]) -> list[T]:
    return [thing async for thing in things]
