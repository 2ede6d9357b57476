"""``neuro config login-with-token``."""

from __future__ import annotations

import click

from neuro.cli.config.login import welcome
from neuro.cli.context import Context, pass_context
from neuro.cli.failures import BAD_VALUE, CONFIG, Failure
from neuro.cli.lazy import Command
from neuro.cli.login import log_in, read_owner
from neuro.cli.paths import default_data_dir
from neuro.client.accounts import api_url, user_in
from neuro.domain.errors import InvalidInput


@click.command(
    "login-with-token",
    cls=Command,
    examples="neuro config login-with-token eyJ0eXAi… http://lab.example.org:8085",
)
@click.argument("token")
@click.argument("url", required=False)
@pass_context
def command(context: Context, token: str, url: str | None) -> None:
    """Log in to the server at URL with TOKEN; without URL to this machine's or the current one."""
    if "://" in token:
        example = f"neuro config login-with-token TOKEN {token}"
        raise Failure(f"'{token}' is an address. The token comes first: `{example}`.", BAD_VALUE)
    try:
        user_in(token)
    except InvalidInput as error:
        raise Failure(
            f"{error} It is not a whole token: copy the line that `neuro admin add-user` or"
            " `neuro config token create` printed.",
            BAD_VALUE,
        ) from None
    owner = read_owner(default_data_dir())
    address = api_url(url) if url else owner.url if owner else context.accounts.current
    if address is None:
        raise Failure("Say which server the token is for: give its URL too.", CONFIG)
    welcome(context, log_in(context, address, token))
