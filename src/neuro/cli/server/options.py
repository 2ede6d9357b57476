"""The options that ``neuro up`` and ``neuro server run`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

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
    """``--port``, ``--host``, ``--data-dir``, ``--database``."""
    for option in (
        click.option(
            "--database",
            metavar="URL",
            envvar="NEURO_DATABASE",
            help="PostgreSQL's address; default: $NEURO_DATABASE, SQLite in the data folder.",
        ),
        data_dir_option,
        click.option("--host", default="127.0.0.1", show_default=True, help="Listen here."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=DEFAULT_PORT,
            show_default=True,
            help="Listen there; 0 for any free port.",
        ),
    ):
        command = option(command)
    return command


def folder(given: Path | None) -> Path:
    """The data directory in use."""
    return (given.expanduser() if given else default_data_dir()).absolute()
