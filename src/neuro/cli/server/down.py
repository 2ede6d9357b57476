"""``neuro down``: stop the server; its jobs go on."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.login import read_owner
from neuro.cli.server.local import find_running, finds_database, stop
from neuro.cli.server.options import data_dir_option, folder, folder_of_current, up_command
from neuro.cli.server.status import NOT_RUNNING
from neuro.client import Client
from neuro.client.accounts import Account, Accounts
from neuro.client.blocking import run
from neuro.client.installation import server_state
from neuro.domain.errors import PlatformError


def running_jobs(data_dir: Path) -> int | None:
    """How many jobs run on the engines of that server; None where it does not say."""
    owner = read_owner(data_dir)
    if owner is None:
        return None
    try:
        state = run(server_state(Client.blocking(owner.url, owner.token, timeout=5)))
    except PlatformError:
        return None
    return sum(engine.running for engine in state.engines if engine.is_here)


def other_server(context: Context, data_dir: Path) -> Path | None:
    """The data folder of another server of this person's that runs on this machine."""
    known = {account.data_dir for account in context.accounts.accounts} | {str(folder(None))}
    others = (Path(other) for other in sorted(filter(None, known)) if other != str(data_dir))
    return next((other for other in others if find_running(other) is not None), None)


def go_back(context: Context, data_dir: Path) -> None:
    """Make the server current again that was it before the one that has stopped, if it is there.

    A server that took any free port never comes back to it: it is forgotten.
    """
    accounts = context.accounts
    stopped = [one for one in accounts.accounts if one.data_dir == str(data_dir)]
    current = accounts.find(accounts.current) if accounts.current else None
    if current in stopped:
        previous = accounts.find(current.before) if current.before else None
        if previous is None or not _may_run(previous):
            return
        current = previous
    gone = [one for one in stopped if one.any_port]
    if current is None or (current.url == accounts.current and not gone):
        return
    left = [one for one in accounts.accounts if one not in gone]
    context.save_accounts(Accounts(current=current.url, accounts=left))
    if current.url != accounts.current:
        context.out.note(f"The current server is {current.url} again.")


def _may_run(account: Account) -> bool:
    """Whether a server may be there; of one on another machine nothing is known."""
    return account.data_dir is None or find_running(Path(account.data_dir)) is not None


@click.command("down", cls=Command, examples="neuro down")
@data_dir_option
@pass_context
def command(context: Context, data_dir: Path | None) -> int:
    """Stop the server on this machine. Jobs go on running; `neuro up` takes them over."""
    where, out = folder_of_current(context, data_dir), context.out
    server = find_running(where)
    if server is None:
        go_back(context, where)
        other = other_server(context, where)
        advice = (
            "name another folder with --data-dir."
            if other is None
            else f"another one does: `neuro down --data-dir {shlex.quote(str(other))}` stops it."
        )
        out.say(f"No server runs on {where}: {advice}")
        return NOT_RUNNING
    jobs = running_jobs(where)
    stop(server)
    if not jobs:
        out.note("The server has stopped.")
    else:
        count = "1 job goes" if jobs == 1 else f"{jobs} jobs go"
        also = "" if finds_database(server, where) else ", with the same --database,"
        out.note(
            f"The server has stopped. {count} on running: `{up_command(where)}`{also} takes over"
            " again."
        )
    go_back(context, where)
    return 0
