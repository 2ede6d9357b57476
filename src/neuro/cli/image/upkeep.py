"""``neuro image rules`` and ``quota``: which tags stay, and how much the images of one may take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.image.registry import print_sheet, whole
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Cell, Column, Line
from neuro.domain.durations import format_duration, parse_duration
from neuro.domain.errors import InvalidInput
from neuro.domain.image_upkeep import ImageRules, ImageRulesInForce
from neuro.domain.sizes import parse_bytes
from neuro.domain.uris import complete_uri


@click.command(
    "rules",
    cls=Command,
    examples="""
        neuro image rules image:trainer
        neuro image rules image:trainer --keep-last 10 --keep-tags 'v*'
        neuro image rules image:trainer --keep-for 30d --immutable 'v*'
        neuro image rules image: --keep-for 90d      # of all of yours
        neuro image rules image:trainer --clear
    """,
)
@click.argument("image")
@click.option(
    "--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the N newest tags."
)
@click.option(
    "--keep-for", metavar="TIMEDELTA", help="Keep tags that were pushed or pulled in this time."
)
@click.option("--keep-tags", multiple=True, metavar="PATTERN", help="Keep these tags, too.")
@click.option(
    "--immutable", multiple=True, metavar="PATTERN", help="Let nobody move or remove these tags."
)
@click.option("--clear", is_flag=True, help="Remove the rules of IMAGE.")
@json_option()
@pass_context
def rules(
    context: Context,
    image: str,
    keep_last: int | None,
    keep_for: str | None,
    keep_tags: tuple[str, ...],
    immutable: tuple[str, ...],
    clear: bool,
    as_json: bool,
) -> None:
    """Show or set which tags of IMAGE stay.

    Options take the place of all rules that IMAGE had. With --keep-last or
    --keep-for every tag goes that neither of them nor --keep-tags keeps.
    PATTERN is as in a shell: 'v*'. Rules of image:a hold for image:a/b, too,
    where that has none of its own; those of image: hold for all of yours.
    """
    images, out, client = context.client.images, context.out, context.client
    uri = complete_uri(image, "image", cluster=client.cluster, user=client.user)
    wanted = ImageRules(
        keep_last=keep_last,
        keep_seconds=None if keep_for is None else parse_duration(keep_for).total_seconds(),
        keep_tags=list(keep_tags),
        immutable=list(immutable),
    )
    if clear and wanted != ImageRules():
        raise InvalidInput("--clear removes all rules: give it without the other options.")
    if clear:
        context.run(images.remove_rules(uri))
    elif wanted != ImageRules():
        context.run(images.set_rules(uri, wanted))
    found = context.run(images.rules(uri))
    if as_json:
        out.print(document(found))
        return
    for line in _in_words(found):
        out.print(line)


def _in_words(found: ImageRulesInForce) -> Iterator[str]:
    if found.path is None:
        yield "No rules: every tag stays until somebody removes it."
        return
    its = found.rules
    yield f"Rules of image:/{found.path}:"
    if its.keep_last is None and its.keep_seconds is None:
        yield "  every tag stays until somebody removes it"
    if its.keep_last is not None:
        yield f"  keep the newest tags: {its.keep_last}"
    if its.keep_seconds is not None:
        life = format_duration(timedelta(seconds=its.keep_seconds))
        yield f"  keep tags that were pushed or pulled in the last {life}"
    if its.keep_tags:
        yield f"  keep tags like {', '.join(its.keep_tags)}"
    if its.immutable:
        yield f"  nobody moves or removes tags like {', '.join(its.immutable)}"


@click.command(
    "quota",
    cls=Command,
    examples="""
        neuro image quota
        neuro image quota --all                      # for administrators
        neuro image quota alice --set 100G
        neuro image quota alice --set default        # what server.toml says
    """,
)
@click.argument("owner", required=False)
@click.option("--set", "size", metavar="SIZE", help="Let them have this; 0: any amount.")
@click.option("--all", "everybody", is_flag=True, help="Show everybody's.")
@json_option("Print one JSON document; sizes are bytes.")
@pass_context
def quota(
    context: Context, owner: str | None, size: str | None, everybody: bool, as_json: bool
) -> None:
    """Show or set how much the images of OWNER may take; without OWNER yours.

    Administrators see and set everybody's. Images of service accounts count
    for their owner, and a layer of several images counts once.
    """
    images, out, name = context.client.images, context.out, owner or context.client.user
    if everybody and (owner or size is not None):
        raise InvalidInput("--all shows everybody's quota: give it without OWNER and --set.")
    if size is not None:
        count = None if size == "default" else parse_bytes(size)
        found = [context.run(images.set_quota(name, count))]
    elif everybody:
        found = context.run(whole(images.quotas()))
    else:
        found = [context.run(images.quota(name))]
    if as_json:
        out.print(document(found if everybody else found[0]))
        return
    rows: list[list[Cell]] = [
        [
            (Line(one.owner),),
            (Line(gnu_size(one.used)),),
            (Line("any amount" if one.size is None else gnu_size(one.size)),),
        ]
        for one in found
    ]
    columns = [Column("OWNER"), Column("USED", align="right"), Column("QUOTA", align="right")]
    print_sheet(context, columns, rows)
