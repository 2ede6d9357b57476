"""``neuro config show-token``."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command


@click.command(
    "show-token",
    cls=Command,
    examples='curl -H "Authorization: Bearer $(neuro config show-token)" …',
)
@pass_context
def command(context: Context) -> None:
    """Print the token in use. Anybody who has it can act as you: treat it like a password."""
    context.out.print(context.account.token)
