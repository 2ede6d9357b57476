"""``neuro config switch-cluster``: among the clusters of all servers logged in to."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import BAD_VALUE, Failure
from neuro.cli.lazy import Command
from neuro.client.accounts import Account, api_url

Place = tuple[Account, str]


def choose(places: Sequence[Place], current: str | None, name: str, server: str | None) -> Place:
    """The place that the person means; one of the current server's comes first.

    Raises Failure where there is none, or where it is not clear which.
    """
    found = [
        (account, cluster)
        for account, cluster in places
        if cluster == name and server in (None, account.url)
    ]
    here = [place for place in found if place[0].url == current]
    if len(found) == 1 or (here and server is None):
        return (here or found)[0]
    if not found:
        known = ", ".join(f"{cluster} ({account.url})" for account, cluster in places) or "none"
        raise Failure(f"There is no cluster '{name}'. There are: {known}.", BAD_VALUE)
    urls = ", ".join(account.url for account, _ in found)
    raise Failure(f"Several servers have a cluster '{name}': add --server with {urls}.", BAD_VALUE)


def _ask(context: Context, places: Sequence[Place]) -> Place:
    for number, (account, cluster) in enumerate(places, start=1):
        context.out.print(f"  {number}  {cluster}  {account.url}")
    number = click.prompt("Switch to number", type=click.IntRange(1, len(places)))
    return places[int(number) - 1]


@click.command(
    "switch-cluster",
    cls=Command,
    examples="""
        neuro config switch-cluster default
        neuro config switch-cluster --server http://lab.example.org:8085 default
    """,
)
@click.argument("cluster_name", required=False)
@click.option(
    "--server", metavar="URL", help="The server's URL, where several servers have the cluster."
)
@pass_context
def command(context: Context, cluster_name: str | None, server: str | None) -> None:
    """Make CLUSTER_NAME the current cluster; without a name, ask."""
    accounts, out = context.accounts, context.out
    _ = context.account  # Says so where nobody is logged in.
    url = api_url(server) if server else None
    places = [(a, c.name) for a in accounts.accounts for c in a.config.clusters]
    if cluster_name is None and url is not None:
        account = accounts.find(url)
        if account is None:
            raise Failure(f"You are not logged in to {url}.", BAD_VALUE)
        place = account, account.cluster
    elif cluster_name is not None:
        place = choose(places, accounts.current, cluster_name, url)
    elif out.is_terminal:
        place = _ask(context, places)
    else:
        raise click.UsageError("Missing argument 'CLUSTER_NAME'.")
    chosen = msgspec.structs.replace(place[0], cluster=place[1])
    context.save_accounts(accounts.with_account(chosen))
    where = f" at {chosen.url}" if len(accounts.accounts) > 1 else ""
    out.print(f"The current cluster is {chosen.cluster}{where}")
    if (local := context.user_config.cluster_name) and local != chosen.cluster:
        out.warning(f"In this folder .neuro.toml still chooses the cluster '{local}'.")
