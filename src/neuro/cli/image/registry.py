"""``neuro image``: looking at the images of the platform's registry, and removing them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import Failure
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.job_row import View
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Cell, Column, Line, Sheet
from neuro.cli.render.times import iso_seconds, local_now
from neuro.cli.render.uris import short_uri
from neuro.domain.errors import InvalidInput
from neuro.domain.image_upkeep import ImageTag, ScrubbedFile, StoredFile, WhyStored

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
        for uri in context.run(whole(images.list()))
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
    rows: list[list[Cell]] = [
        [(Line(text),), (Line(images.host + uri.path),)]
        for text, uri in zip(shown, found, strict=True)
    ]
    print_sheet(context, [Column("IMAGE"), Column("DOCKER")], rows)


@click.command("tags", cls=Command, examples="neuro image tags -l image:trainer")
@click.argument("image")
@click.option("-l", "long", is_flag=True, help="Show sizes, and when each was pushed and pulled.")
@json_option()
@pass_context
def tags(context: Context, image: str, long: bool, as_json: bool) -> None:
    """List the tags of IMAGE."""
    images, out = context.client.images, context.out
    one = images.image(image)
    if long:
        in_full = context.run(whole(images.tags_in_full(one)))
        if as_json:
            out.print(document(in_full))
        else:
            _print_tags(context, in_full)
        return
    found = context.run(whole(images.tags(one)))
    if as_json:
        out.print(document(found))
        return
    for tag in found:
        out.print(tag)


def _print_tags(context: Context, tags: Sequence[ImageTag]) -> None:
    view = View(context.client.user, local_now(), context.out.iso_dates)
    rows: list[list[Cell]] = [
        [
            (Line(gnu_size(tag.size)),),
            (Line(tag.tag),),
            (Line(view.time(tag.pushed_at)),),
            (Line("never" if tag.pulled_at is None else view.time(tag.pulled_at)),),
            (Line("immutable" if tag.is_immutable else ""),),
        ]
        for tag in tags
    ]
    titles = ("TAG", "PUSHED", "PULLED", "")
    print_sheet(context, [Column("SIZE", align="right"), *map(Column, titles)], rows)


def print_sheet(context: Context, columns: Sequence[Column], rows: Sequence[list[Cell]]) -> None:
    """Print a table, as wide as the terminal."""
    out = context.out
    sheet = Sheet(columns, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))
    for line in (sheet.header(), *sheet.lines()):
        out.print(line)


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

    A tag goes alone. An image without any tag, and layers that no image
    needs any more, are deleted a day later.
    """
    its = context.client.images
    for text in images:
        one = its.image(text)
        context.run(its.remove(one, with_all_tags=force))
        context.out.note(f"Removed {one}.")


@click.command(
    "gc",
    cls=Command,
    examples="""
        neuro image gc --dry-run
        neuro image gc --scrub                       # reads 100 MiB a second
    """,
)
@click.option("--dry-run", is_flag=True, help="Show what is on the disk, and delete nothing.")
@click.option("--scrub", is_flag=True, help="Find layers that the disk has changed.")
@json_option("Print one JSON document; sizes are bytes.")
@pass_context
def gc(context: Context, dry_run: bool, scrub: bool, as_json: bool) -> None:
    """Show why each layer is on the disk, and what will be deleted; for administrators.

    The server deletes by itself what nothing has needed for a day. With
    --scrub it reads every layer, and deletes those that are not what was
    pushed; if there are any, the exit code is 1.
    """
    if dry_run == scrub:
        raise InvalidInput(
            "The server deletes by itself what nothing has needed for a day. To see what that is:"
            " neuro image gc --dry-run. To look for damage: neuro image gc --scrub"
        )
    out = context.out
    if scrub:
        _scrub(context, as_json)
        return
    found = context.run(whole(context.client.images.files()))
    if as_json:
        out.print(document(found))
        return
    for one in found:
        out.print(f"{gnu_size(one.size):>8}  {one.digest or 'an upload':71}  {_why(one)}")
    garbage = sum(one.size for one in found if one.why is WhyStored.GARBAGE)
    total = gnu_size(sum(one.size for one in found))
    out.print(f"{total:>8}  in all, {gnu_size(garbage)} of it garbage")


def _scrub(context: Context, as_json: bool) -> None:
    out = context.out
    rotten: list[ScrubbedFile] = []

    async def read() -> tuple[int, int]:
        count, size = 0, 0
        async for one in context.client.images.scrub():
            count, size = count + 1, size + one.size
            if one.is_rotten:
                rotten.append(one)
            if out.is_terminal:
                click.echo(f"\r{count} layers, {gnu_size(size)} \x1b[K", nl=False, err=True)
        if out.is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
        return count, size

    count, size = context.run(read())
    if as_json:
        out.print(document({"files": count, "size": size, "rotten": rotten}))
    else:
        for one in rotten:
            image = f"image:/{one.of} needs it" if one.of else "no image needs it"
            out.print(f"{gnu_size(one.size):>8}  {one.digest:71}  {image}")
        out.print(f"{gnu_size(size):>8}  in {count} layers, {len(rotten)} of them damaged")
    if rotten:
        raise Failure("Damaged layers were deleted: push the images that need them again.")


def _why(one: StoredFile) -> str:
    until = f" until {iso_seconds(one.until, local_now())}" if one.until else ""
    match one.why:
        case WhyStored.NEEDED:
            return f"image:/{one.of} needs it"
        case WhyStored.RECENT:
            image = f"image:/{one.of}, which no tag leads to," if one.of else "no image"
            return f"{image} needs it; kept{until}"
        case WhyStored.UPLOAD:
            return f"to image:/{one.of}, has not ended; kept{until}"
        case WhyStored.GARBAGE:
            return "no image needs it; will be deleted"


async def whole(things: AsyncGenerator[T, None]) -> list[T]:
    """All of them."""
    return [thing async for thing in things]
