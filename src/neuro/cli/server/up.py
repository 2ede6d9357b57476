"""``neuro up``: start the server on this machine in the background, and log in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
from click.core import ParameterSource
from msgspec.structs import replace

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import CONFIG, MALFUNCTION, Failure
from neuro.cli.lazy import Command
from neuro.cli.login import log_in_as_owner
from neuro.cli.output import Output
from neuro.cli.render.json_text import document, json_option
from neuro.cli.server.local import (
    LocalServer,
    check_installed,
    find_running,
    has_changed_settings,
    server_command,
    server_environment,
    start,
)
from neuro.cli.server.options import folder, server_options
from neuro.cli.server.status import status_document
from neuro.cli.server.summary import print_facts, print_next
from neuro.client.accounts import Account
from neuro.client.installation import server_state


def _log_in(context: Context, data_dir: Path, *, any_port: bool) -> Account:
    """``any_port``: the server was started just now, on any free port."""
    before = context.accounts.current
    account = log_in_as_owner(context, data_dir)
    if account is None:
        raise Failure(
            f"The server runs, but {data_dir}/run/owner.json cannot be read: it belongs to"
            " another user. Ask them for a token: `neuro admin add-user`.",
            MALFUNCTION,
        )
    if before not in (None, account.url) or any_port:
        account = replace(
            account,
            before=account.before if before == account.url else before,
            any_port=account.any_port or any_port,
        )
        context.save_accounts(context.accounts.with_account(account))
    if before not in (None, account.url):
        context.out.note(f"The current server was {before}, and is now {account.url}.")
    return account


def _warn_of_changes(
    out: Output, running: LocalServer, where: Path, given: Mapping[str, str]
) -> None:
    """Say which options a running server does not follow; ``given`` are those that were given."""
    url = urlsplit(running.url)
    listens = f"It listens at {running.url}: `neuro down` first to change the"
    if "port" in given and int(given["port"]) not in (0, url.port):
        out.warning(f"{listens} port.")
    if "host" in given and given["host"] not in (running.host or url.hostname, url.hostname):
        out.warning(f"{listens} host.")
    if (
        "database" in given
        and running.database is not None
        and hashlib.sha256(given["database"].encode()).hexdigest() != running.database
    ):
        out.warning("It has another database: `neuro down` first to change it.")
    if has_changed_settings(running, where):
        out.warning(
            f"{where}/server.toml was changed since the server read it: `neuro server reload`"
            " applies it."
        )


def _check_engine(running: LocalServer, engine: str | None) -> None:
    """Raise Failure where the server runs jobs on another engine: they would be other jobs."""
    if engine is not None and engine != (running.engine or "sandbox"):
        raise Failure(
            f"The server that is up runs jobs on {running.engine or 'sandbox'}: `neuro down`, and"
            f" then `neuro up --engine {engine}`. Jobs go on meanwhile.",
            CONFIG,
        )


def _given() -> dict[str, str]:
    """The options of this command that were given, by argument or variable."""
    call = click.get_current_context()
    default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {
        name: str(value)
        for name, value in call.params.items()
        if call.get_parameter_source(name) not in default
    }


@click.command(
    "up",
    cls=Command,
    examples="""
        neuro up
        neuro up --port 9000 --data-dir /data/neuro
        neuro up --host 0.0.0.0                 # for the whole network
        neuro up --engine sandbox               # whatever else this machine has
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
    engine: str | None,
    as_json: bool,
) -> None:
    """Start the platform on this machine, and log in to it."""
    check_installed()
    where, out = folder(data_dir), context.out
    running = find_running(where)
    if running is None:
        line = server_command(data_dir=where, host=host, port=port, engine=engine)
        slow = partial(out.note, "Starting…") if out.is_terminal else None
        chosen = start(line, server_environment(database), where, slow=slow)
        title = "The platform is up."
    else:
        chosen, title = None, f"The platform is up already (pid {running.pid})."
        _check_engine(running, engine)
        _warn_of_changes(out, running, where, _given())
    account = _log_in(context, where, any_port=running is None and port == 0)
    if as_json:
        out.print(document(status_document(context, where)))
        return
    if out.quiet:
        out.print(account.url)
        return
    out.print(f"{out.style('√', fg='green', bold=True)} {out.style(title, bold=True)}\n")
    print_facts(out, account, context.run(server_state(context.client)), where, chosen)
    print_next(out)
