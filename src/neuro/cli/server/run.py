"""``neuro server run``: the server in the foreground, for systemd and containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.server.local import check_installed, server_command, server_environment
from neuro.cli.server.options import folder, server_options


@click.command(
    "run",
    cls=Command,
    examples="""
        neuro server run
        neuro server run --host 0.0.0.0 --data-dir /var/lib/neuro
    """,
)
@server_options
@pass_context
def command(
    context: Context,
    port: int,
    host: str,
    data_dir: Path | None,
    database: str | None,
    engine: str | None,
) -> None:
    """Run the server in the foreground until SIGTERM; its log goes to standard error."""
    check_installed()
    line = server_command(
        data_dir=folder(data_dir),
        host=host,
        port=port,
        engine=engine,
        verbose=context.out.verbose > 0,
    )
    sys.stdout.flush()
    # The server takes this process's place.
    os.execve(line[0], line, server_environment(database))  # noqa: S606
