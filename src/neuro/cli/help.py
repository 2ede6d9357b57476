"""``neuro help``: of a command, or a topic."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command, LazyGroup
from neuro.cli.topics import TEXTS


@click.command(
    "help",
    cls=Command,
    examples="""
        neuro help run
        neuro help config token
        neuro help ps-format
    """,
)
@click.argument("words", nargs=-1, metavar="[COMMAND...|TOPIC]")
@click.pass_context
@pass_context
def command(context: Context, ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command or of a topic."""
    if len(words) == 1 and words[0] in TEXTS:
        context.out.print(TEXTS[words[0]], newline=False)
        return
    assert ctx.parent is not None
    root = ctx.parent.command
    if words and isinstance(root, LazyGroup) and root.get_command(ctx.parent, words[0]) is None:
        ctx.parent.fail(
            f"{root.unknown(words[0], TEXTS)} `neuro --help` lists the commands; topics are"
            f" {', '.join(TEXTS)}."
        )
    here, what = ctx.parent, ctx.parent.command
    for word in words:
        if not isinstance(what, click.Group):
            ctx.fail(f"'{here.command_path}' has no command '{word}'.")
        name, found, _ = what.resolve_command(here, [word])
        assert found is not None
        here, what = click.Context(found, info_name=name, parent=here), found
    context.out.print(here.get_help())
