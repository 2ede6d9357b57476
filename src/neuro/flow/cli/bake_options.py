"""The options that commands about bakes share: which attempt, who drives it, where it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from neuro.flow.cli.bake_names import LAST
from neuro.flow.cli.names import offer

F = TypeVar("F", bound=Callable[..., Any])


def attempt_option(which: str = "Which attempt", *, default: int | None = LAST) -> Callable[[F], F]:
    """Add ``--attempt``; ``which`` is how its help begins."""
    return click.option(
        "-a",
        "--attempt",
        type=int,
        default=default,
        metavar="N",
        help=f"{which}; by default, the last.",
        shell_complete=offer("attempts"),
    )


def graph_option(command: F) -> F:
    """Add ``--output-graph``."""
    return click.option(
        "-o",
        "--output-graph",
        "--output",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Write the graph to FILE.dot, .gv, .pdf, .svg or .png.",
    )(command)


def driver_options(what: str) -> Callable[[F], F]:
    """Add ``--detach`` and ``--local-executor`` for who starts ``what``."""

    def add(command: F) -> F:
        local = click.option(
            "--local-executor",
            is_flag=True,
            help="Drive the bake from this terminal instead of a job of its own.",
        )
        detach = click.option(
            "--detach", is_flag=True, help=f"Do not watch: end when the {what} is started."
        )
        return detach(local(command))

    return add


def check_driver(*, detach: bool, local_executor: bool) -> None:
    """Raise UsageError where both are asked for."""
    if detach and local_executor:
        raise click.UsageError("--local-executor needs this terminal: it cannot be detached")
