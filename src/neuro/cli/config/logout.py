"""``neuro logout``."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import CONFIG, Failure
from neuro.cli.lazy import Command


@click.command("logout", cls=Command, examples="neuro logout")
@pass_context
def command(context: Context) -> None:
    """Log out of the current server, and forget its token here."""
    accounts, out = context.accounts, context.out
    if accounts.current is None:
        raise Failure("You are not logged in.", CONFIG)
    left = accounts.without(accounts.current)
    context.save_accounts(left)
    if not out.quiet:
        out.print("Logged out")
    if left.current:
        out.note(f"The current server is now {left.current}.")
