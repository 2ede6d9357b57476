"""``neuro config show``."""

from __future__ import annotations

from collections.abc import Mapping

import click
import msgspec

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.presets import config_lines
from neuro.client.accounts import Account
from neuro.client.installation import engines_away
from neuro.client.transport import ServerUnreachable


def refreshed(context: Context) -> tuple[Account, bool]:
    """The account with the server's configuration of now, and whether the server answers.

    As last seen where it does not.
    """
    account = context.account
    try:
        config = context.run(context.client.config())
    except ServerUnreachable as error:
        context.out.warning(f"{error} What follows is its last answer.")
        return account, False
    if config.clusters and config != account.config:
        fresh = msgspec.structs.replace(account, config=config)
        if context.accounts.find(account.url):
            stored = context.accounts.find(account.url)
            assert stored is not None
            kept = msgspec.structs.replace(stored, config=config)
            context.save_accounts(context.accounts.with_account(kept))
        return fresh, True
    return account, True


def as_told(account: Account, away: Mapping[str, str]) -> dict[str, object]:
    """An account as JSON for programs, without its token."""
    return {
        "user": account.user,
        "cluster": account.cluster,
        "api_url": account.url,
        "presets": account.current_cluster.resource_presets,
        "away": away,
    }


@click.command("show", cls=Command, examples="neuro config show")
@json_option()
@pass_context
def command(context: Context, as_json: bool) -> None:
    """Show the user, the current cluster, its address and its presets."""
    account, answers = refreshed(context)
    away = context.run(engines_away(context.client)) if answers else {}
    for why in away.values():
        context.out.warning(why)
    if as_json:
        context.out.print(document(as_told(account, away)))
        return
    for line in config_lines(account):
        context.out.print(line)
