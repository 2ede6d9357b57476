"""``neuro server reload``: apply a changed ``server.toml``."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.login import read_owner
from neuro.cli.server.local import find_running, reload
from neuro.cli.server.options import data_dir_option, folder_of_current, up_command
from neuro.cli.server.status import NOT_RUNNING
from neuro.client import Client
from neuro.client.installation import server_state


@click.command("reload", cls=Command, examples="neuro server reload")
@data_dir_option
@pass_context
def command(context: Context, data_dir: Path | None) -> int:
    """Let the server on this machine read server.toml again. Jobs go on running.

    A file with a mistake changes nothing: the mistake is printed.
    """
    where, out = folder_of_current(context, data_dir), context.out
    server = find_running(where)
    if server is None:
        out.note(f"No server runs on {where}. `{up_command(where)}` starts one.")
        return NOT_RUNNING
    reload(server, where)
    settings = where / "server.toml"
    if settings.exists():
        out.note(f"The server has applied {settings}.")
    else:
        out.note(f"There is no {settings}: the server has its default settings now.")
    if (owner := read_owner(where)) is not None:
        client = Client.blocking(owner.url, owner.token, timeout=context.timeout)
        for notice in context.run(server_state(client)).notices:
            out.warning(f"{notice}.")
    return 0
