"""Logging in: by a token, by this machine's own server, by what a job was passed."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from neuro.cli.context import Context
from neuro.cli.failures import CONFIG, NOT_PERMITTED, Failure
from neuro.cli.paths import owner_file
from neuro.client import Client
from neuro.client.accounts import NOBODY, Account, NotConfigured, passed_config, user_in
from neuro.client.blocking import run
from neuro.domain.errors import NotAuthenticated
from neuro.domain.server_config import ServerConfig

# The server looks every 5 seconds whether the owner's token has expired.
RENEWAL_SECONDS = 10.0
_PAUSE = 0.05


class Owner(msgspec.Struct, frozen=True):
    """What the local server leaves for the owner of the machine."""

    url: str
    token: str
    user: str


def fetch_config(context: Context, url: str, token: str) -> ServerConfig:
    """What the server says to the holder of the token. Raises Failure where it knows them not."""
    client = Client.blocking(url, token, timeout=context.timeout)
    config = run(client.config())
    if not config.authorized and not config.clusters:
        raise Failure(f"The server at {url} does not accept this token.", NOT_PERMITTED)
    if not config.clusters:
        raise Failure(f"The server at {url} offers no clusters.", CONFIG)
    return config


def account_of(
    context: Context, url: str, token: str, *, cluster: str | None = None, user: str | None = None
) -> Account:
    """Ask the server, and make an account of its answer; nothing is stored."""
    name = user or user_in(token)
    config = fetch_config(context, url, token)
    known = context.accounts.find(url)
    names = [offered.name for offered in config.clusters]
    wanted = cluster or (known.cluster if known else None)
    return Account(
        url=url,
        token=token,
        user=config.user_name or name,
        cluster=wanted if wanted in names else names[0],
        config=config,
        data_dir=known.data_dir if known else None,
        before=known.before if known else None,
        any_port=known is not None and known.any_port,
    )


def log_in(
    context: Context,
    url: str,
    token: str,
    *,
    user: str | None = None,
    data_dir: Path | None = None,
) -> Account:
    """Log in, remember the server and make it the current one.

    ``data_dir`` is where its data is, of a server of this machine.
    """
    account = account_of(context, url, token, user=user)
    if data_dir is not None:
        account = msgspec.structs.replace(account, data_dir=str(data_dir))
    context.save_accounts(context.accounts.with_account(account))
    return account


def read_owner(data_dir: Path) -> Owner | None:
    """This machine's owner's login, if there is one that this person may read."""
    try:
        return msgspec.json.decode(owner_file(data_dir).read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def log_in_as_owner(context: Context, data_dir: Path) -> Account | None:
    """Log in to the server on a data folder, as who started it.

    None where it was never started, or belongs to another user. A server whose owner's token has
    just ended leaves a new one: it is waited for. Raises Failure, PlatformError.
    """
    end = time.monotonic() + RENEWAL_SECONDS
    while (owner := read_owner(data_dir)) is not None:
        try:
            return log_in(context, owner.url, owner.token, user=owner.user, data_dir=data_dir)
        except NotAuthenticated:
            while read_owner(data_dir) == owner:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)
    return None


def log_in_by_passed_config(context: Context) -> Account:
    """Log in with what a job was passed, for this process only.

    Nothing is stored: the folder may be a volume that another job uses with its own token.
    """
    passed = passed_config()
    if passed is None:
        raise NotConfigured(NOBODY)
    return account_of(context, passed.url, passed.token, cluster=passed.cluster)
