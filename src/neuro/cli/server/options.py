"""The options that ``neuro up`` and ``neuro server run`` share."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from neuro.cli.context import Context
from neuro.cli.paths import default_data_dir

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_PORT = 8085


def data_dir_option(command: F) -> F:
    """``--data-dir``: where the server's data is; None is turned into the default by ``folder``."""
    return click.option(
        "--data-dir",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the platform's data is; default: $NEURO_DATA_DIR, ~/.local/share/neuro.",
    )(command)


def server_options(command: F) -> F:
    """``--port``, ``--host``, ``--data-dir``, ``--database``, ``--engine``."""
    for option in (
        click.option(
            "--engine",
            metavar="NAME",
            envvar="NEURO_ENGINE",
            help="What runs jobs: docker, podman, sandbox; default: $NEURO_ENGINE, what is here.",
        ),
        click.option(
            "--database",
            metavar="URL",
            envvar="NEURO_DATABASE",
            help="PostgreSQL's address; default: $NEURO_DATABASE, SQLite in the data folder.",
        ),
        data_dir_option,
        click.option(
            "--host", default="127.0.0.1", show_default=True, help="The address to listen on."
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=DEFAULT_PORT,
            show_default=True,
            help="The port to listen on; 0 for any free one.",
        ),
    ):
        command = option(command)
    return command


def folder_of_current(context: Context, given: Path | None) -> Path:
    """The data folder that is named, or that of the current server, if it is of this machine."""
    if given is not None or os.environ.get("NEURO_DATA_DIR"):
        return folder(given)
    accounts = context.accounts
    current = accounts.find(accounts.current) if accounts.current else None
    if current is None or current.data_dir is None:
        return folder(None)
    return Path(current.data_dir)


def up_command(where: Path) -> str:
    """The command that starts the server on a data folder."""
    if where == folder(None):
        return "neuro up"
    return f"neuro up --data-dir {shlex.quote(str(where))}"


def folder(given: Path | None) -> Path:
    """The data folder in use."""
    return (given.expanduser() if given else default_data_dir()).absolute()
