"""``neuro config aliases``."""

from __future__ import annotations

import click

from neuro.cli.aliases import describe
from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column, Line, Table


@click.command("aliases", cls=Command, examples="neuro config aliases")
@json_option()
@pass_context
def command(context: Context, as_json: bool) -> None:
    """List the aliases of user.toml and .neuro.toml (see `neuro help aliases`)."""
    aliases = context.user_config.aliases
    if as_json:
        told = [{"name": name, "description": describe(aliases[name])} for name in sorted(aliases)]
        context.out.print(document(told))
        return
    rows = [((Line(name),), (Line(describe(aliases[name])),)) for name in sorted(aliases)]
    table = Table((Column("Alias", shrinks=False), Column("Description")), width=terminal_width())
    table.measure(rows)
    for line in (table.header(), *table.lines(rows)):
        context.out.print(line)
