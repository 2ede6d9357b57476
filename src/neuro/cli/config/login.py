"""``neuro login``: to this machine's own server without a browser, to others with a token."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import CONFIG, Failure
from neuro.cli.lazy import Command
from neuro.cli.login import log_in, read_owner
from neuro.cli.paths import default_data_dir
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
        neuro config login-with-token TOKEN http://lab.example.org:8085
    """,
)
@click.argument("url", required=False)
@pass_context
def command(context: Context, url: str | None) -> None:
    """Log in to the server at URL; without one, to the server on this machine."""
    owner = read_owner(default_data_dir())
    wanted = api_url(url) if url else None
    if owner is not None and wanted in (None, owner.url):
        return welcome(context, log_in(context, owner.url, owner.token, user=owner.user))
    if wanted is None:
        raise Failure(
            "No server was started on this machine yet (or it is another person's). Start one with"
            " `neuro up`, or name one: `neuro config login-with-token TOKEN URL`.",
            CONFIG,
        )
    raise Failure(
        f"{wanted} is not this machine's own server: ask its administrator for a token"
        f" (`neuro admin add-user`), then `neuro config login-with-token TOKEN {wanted}`.",
        CONFIG,
    )
