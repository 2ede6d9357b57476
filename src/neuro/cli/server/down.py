"""``neuro down``: stop the server; its jobs go on."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.login import read_owner
from neuro.cli.server.local import find_running, stop
from neuro.cli.server.options import data_dir_option, folder_of_current, up_command
from neuro.client import Client
from neuro.client.blocking import run
from neuro.client.installation import server_state
from neuro.domain.errors import PlatformError


def running_jobs(data_dir: Path) -> int | None:
    """How many jobs run there; None where the server does not say."""
    owner = read_owner(data_dir)
    if owner is None:
        return None
    try:
        state = run(server_state(Client.blocking(owner.url, owner.token, timeout=5)))
    except PlatformError:
        return None
    return sum(engine.running for engine in state.engines)


@click.command("down", cls=Command, examples="neuro down")
@data_dir_option
@pass_context
def command(context: Context, data_dir: Path | None) -> None:
    """Stop the server on this machine. Jobs go on running; `neuro up` takes them over."""
    where, out = folder_of_current(context, data_dir), context.out
    server = find_running(where)
    if server is None:
        out.note(f"No server runs on {where}: name another folder with --data-dir.")
        return
    jobs = running_jobs(where)
    stop(server)
    if not jobs:
        out.note("The server has stopped.")
        return
    count = "1 job goes" if jobs == 1 else f"{jobs} jobs go"
    out.note(f"The server has stopped. {count} on running: `{up_command(where)}` takes over again.")
