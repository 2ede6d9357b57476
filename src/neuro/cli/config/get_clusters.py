"""``neuro config get-clusters``."""

from __future__ import annotations

import click

from neuro.cli.config.show import refreshed
from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.presets import presets_table


@click.command("get-clusters", cls=Command, examples="neuro config get-clusters")
@json_option()
@pass_context
def command(context: Context, as_json: bool) -> None:
    """List the clusters of all servers that you are logged in to; * marks the current one."""
    (current, _), out = refreshed(context), context.out
    others = [account for account in context.accounts.accounts if account.url != current.url]
    if as_json:
        known = [
            {
                "name": cluster.name,
                "current": account is current and cluster.name == current.cluster,
                "api_url": account.url,
                "user": account.user,
                "presets": cluster.resource_presets,
            }
            for account in (current, *others)
            for cluster in account.config.clusters
        ]
        out.print(document(known))
        return
    out.print("Available clusters:")
    for account in (current, *others):
        for cluster in account.config.clusters:
            is_current = account is current and cluster.name == current.cluster
            name = out.style(cluster.name, bold=is_current)
            out.print(f"{'*' if is_current else ' '} Name: {name}")
            out.print(f"    API URL: {account.url}")
            out.print(f"    User Name: {account.user}")
            for line in presets_table(cluster.resource_presets, indent=4):
                out.print(line)
