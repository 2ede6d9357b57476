"""``neuro storage df``: show how full the storage is."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.sizes import gnu_size


@click.command("df", cls=Command, examples="neuro storage df")
@click.argument("path", default="storage:")
@json_option("Print one JSON document; sizes are bytes.")
@pass_context
def command(context: Context, path: str, as_json: bool) -> None:
    """Show the size of the disk that PATH (storage: by default) is on, and how much is free."""
    storage = context.client.storage
    uri = storage.uri(path)
    usage = context.run(storage.disk_usage(uri))
    if as_json:
        context.out.print(document(usage))
        return
    context.out.print(f"Disk usage for cluster {uri.host}:")
    context.out.print(f"Total: {gnu_size(usage.total)}")
    context.out.print(f"Used:  {gnu_size(usage.used)}")
    context.out.print(f"Free:  {gnu_size(usage.free)}")
