"""``neuro server status``."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.login import account_of, read_owner
from neuro.cli.server.local import find_running
from neuro.cli.server.options import data_dir_option, folder_of_current, up_command
from neuro.cli.server.summary import print_facts
from neuro.client import Client
from neuro.client.installation import server_state

NOT_RUNNING = 3


@click.command("status", cls=Command, examples="neuro server status")
@data_dir_option
@pass_context
def command(context: Context, data_dir: Path | None) -> int:
    """Say whether the server on this machine runs; the exit code is 3 where it does not."""
    where, out = folder_of_current(context, data_dir), context.out
    server = find_running(where)
    if server is None:
        out.print(f"No server runs on {where}. `{up_command(where)}` starts one.")
        return NOT_RUNNING
    since = f" since {server.started_at}" if server.started_at else ""
    out.print(f"The server runs{since} (pid {server.pid}).\n")
    owner = read_owner(where)
    if owner is None:
        out.print(f"  API URL   {server.url}")
        return 0
    account = account_of(context, owner.url, owner.token, user=owner.user)
    client = Client.blocking(owner.url, owner.token, timeout=context.timeout)
    print_facts(out, account, context.run(server_state(client)), where)
    return 0
