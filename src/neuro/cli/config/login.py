"""``neuro login``: to this machine's own server without a browser, to others with a token."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import CONFIG, Failure
from neuro.cli.lazy import Command
from neuro.cli.login import log_in_as_owner, read_owner
from neuro.cli.server.options import data_dir_option, folder
from neuro.client.accounts import Account, api_url


def welcome(context: Context, account: Account) -> None:
    """Say who is logged in where."""
    if not context.out.quiet:
        context.out.print(
            f"Logged into {account.url} as {account.user}, current cluster is {account.cluster}"
        )


@click.command(
    "login",
    cls=Command,
    examples="""
        neuro login                             # to the server on this machine
        neuro login --data-dir /var/lib/neuro   # to the one that systemd starts
        neuro config login-with-token TOKEN http://lab.example.org:8085
    """,
)
@click.argument("url", required=False)
@data_dir_option
@pass_context
def command(context: Context, url: str | None, data_dir: Path | None) -> None:
    """Log in to the server at URL; without one, to the server on this machine."""
    wanted = api_url(url) if url else None
    known = context.accounts.find(wanted) if wanted and data_dir is None else None
    where = Path(known.data_dir) if known and known.data_dir else folder(data_dir)
    owner = read_owner(where)
    if owner is not None and wanted in (None, owner.url):
        account = log_in_as_owner(context, where)
        if account is not None:
            return welcome(context, account)
    if wanted is None:
        raise Failure(
            f"No server was started on {where} yet, or it belongs to another user. Start one with"
            " `neuro up`, name its folder with --data-dir, or log in with the line that its"
            " administrator gives you: `neuro config login-with-token TOKEN URL`.",
            CONFIG,
        )
    raise Failure(
        f"{wanted} is not the server on {where}. If it runs on this machine, name its folder:"
        " `neuro login --data-dir DIR`. Otherwise ask its administrator for a token (`neuro admin"
        f" add-user`), then `neuro config login-with-token TOKEN {wanted}`.",
        CONFIG,
    )
