"""``neuro config show``."""

from __future__ import annotations

import click
import msgspec

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.presets import config_lines
from neuro.client.accounts import Account
from neuro.client.transport import ServerUnreachable


def refreshed(context: Context) -> Account:
    """The account with the server's configuration of now; as last seen where it is away."""
    account = context.account
    try:
        config = context.run(context.client.config())
    except ServerUnreachable as error:
        context.out.warning(f"{error} This is what it said last.")
        return account
    if config.clusters and config != account.config:
        fresh = msgspec.structs.replace(account, config=config)
        if context.accounts.find(account.url):
            stored = context.accounts.find(account.url)
            assert stored is not None
            kept = msgspec.structs.replace(stored, config=config)
            context.save_accounts(context.accounts.with_account(kept))
        return fresh
    return account


@click.command("show", cls=Command, examples="neuro config show")
@pass_context
def command(context: Context) -> None:
    """Show the user, the current cluster, its address and its presets."""
    for line in config_lines(refreshed(context)):
        context.out.print(line)
