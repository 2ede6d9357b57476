"""``neuro up``: start the server on this machine in the background, and log in."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import MALFUNCTION, Failure
from neuro.cli.lazy import Command
from neuro.cli.login import log_in_as_owner
from neuro.cli.render.json_text import document, json_option
from neuro.cli.server.local import (
    check_installed,
    find_running,
    has_changed_settings,
    server_command,
    server_environment,
    start,
)
from neuro.cli.server.options import DEFAULT_PORT, folder, server_options
from neuro.cli.server.status import status_document
from neuro.cli.server.summary import print_facts, print_next
from neuro.client.accounts import Account
from neuro.client.installation import server_state


def _log_in(context: Context, data_dir: Path) -> Account:
    before = context.accounts.current
    account = log_in_as_owner(context, data_dir)
    if account is None:
        raise Failure(
            f"The server runs, but {data_dir}/run/owner.json cannot be read: it belongs to"
            " another user. Ask them for a token: `neuro admin add-user`.",
            MALFUNCTION,
        )
    if before not in (None, account.url):
        context.out.note(f"The current server was {before}, and is now {account.url}.")
    return account


@click.command(
    "up",
    cls=Command,
    examples="""
        neuro up
        neuro up --port 9000 --data-dir /data/neuro
        neuro up --host 0.0.0.0                 # for the whole network
        neuro up --database postgresql://neuro@db/neuro
    """,
)
@server_options
@json_option("Print one JSON document, that of `neuro server status --json`.")
@pass_context
def command(
    context: Context,
    port: int,
    host: str,
    data_dir: Path | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Start the platform on this machine, and log in to it."""
    check_installed()
    where, out = folder(data_dir), context.out
    running = find_running(where)
    if running is None:
        line = server_command(data_dir=where, host=host, port=port)
        start(line, server_environment(database), where)
        title = "The platform is up."
    else:
        title = f"The platform is up already (pid {running.pid})."
        if port not in (DEFAULT_PORT, urlsplit(running.url).port):
            out.warning(f"It listens at {running.url}: `neuro down` first to change the port.")
        if has_changed_settings(running, where):
            out.warning(
                f"{where}/server.toml was changed since the server read it: `neuro server reload`"
                " applies it."
            )
    account = _log_in(context, where)
    if as_json:
        out.print(document(status_document(context, where)))
        return
    if out.quiet:
        out.print(account.url)
        return
    out.print(f"{out.style('√', fg='green', bold=True)} {out.style(title, bold=True)}\n")
    print_facts(out, account, context.run(server_state(context.client)), where)
    print_next(out)
