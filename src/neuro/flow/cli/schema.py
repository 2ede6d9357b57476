"""``neuro-flow schema``: the JSON Schema of a kind of flow file, for editors."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context

KINDS = ("live", "batch", "project", "action")


@click.command(
    "schema",
    cls=Command,
    examples="""
        neuro-flow schema live > live.schema.json
        # then as the first line of live.yml, for editors with yaml-language-server:
        #   yaml-language-server: $schema=../live.schema.json
    """,
)
@click.argument("kind", metavar="KIND", type=click.Choice(KINDS))
@pass_context
def command(context: FlowContext, kind: str) -> None:
    """Print the JSON Schema of KIND of file: live, batch, project or action.

    An editor that knows it completes keys and marks what is wrong while you type.
    """
    from neuro.flow.syntax.json_schema import text

    context.out.print(text(kind), newline=False)
