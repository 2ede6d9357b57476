"""``neuro server status``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.login import account_of, read_owner
from neuro.cli.render.json_text import document, json_option, plain
from neuro.cli.render.times import iso_seconds, local_now
from neuro.cli.server.local import find_running
from neuro.cli.server.options import data_dir_option, folder_of_current, up_command
from neuro.cli.server.summary import print_facts
from neuro.client import Client
from neuro.client.installation import server_state

NOT_RUNNING = 3


def status_document(context: Context, where: Path) -> dict[str, object]:
    """What programs are told of the server on this machine, whether it runs or not."""
    server = find_running(where)
    told: dict[str, object] = {"running": server is not None, "data_dir": str(where)}
    if server is None:
        return told
    told |= {"pid": server.pid, "started_at": server.started_at, "api_url": server.url}
    if (owner := read_owner(where)) is not None:
        client = Client.blocking(owner.url, owner.token, timeout=context.timeout)
        told |= {"user": owner.user, **plain(context.run(server_state(client)))}
    return told


@click.command("status", cls=Command, examples="neuro server status")
@data_dir_option
@json_option()
@pass_context
def command(context: Context, data_dir: Path | None, as_json: bool) -> int:
    """Say whether the server on this machine runs; the exit code is 3 where it does not."""
    where, out = folder_of_current(context, data_dir), context.out
    if as_json:
        told = status_document(context, where)
        out.print(document(told))
        return 0 if told["running"] else NOT_RUNNING
    server = find_running(where)
    if server is None:
        out.print(f"No server runs on {where}. `{up_command(where)}` starts one.")
        return NOT_RUNNING
    owner = read_owner(where)
    started_at = datetime.fromisoformat(server.started_at) if server.started_at else None
    since = iso_seconds(started_at, local_now()) if started_at else None
    runs = f"has been running since {since}" if since else "runs"
    out.print(f"The server {runs} (pid {server.pid}).\n")
    if owner is None:
        out.print(f"  API URL   {server.url}")
        return 0
    account = account_of(context, owner.url, owner.token, user=owner.user)
    client = Client.blocking(owner.url, owner.token, timeout=context.timeout)
    print_facts(out, account, context.run(server_state(client)), where)
    return 0
