"""The option that mounts folders of the storage: jobs have it, and builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def volume_option(text: str) -> Callable[[F], F]:
    """The option ``--volume``, as the argument ``volumes``; ``text`` is what is mounted where."""
    return click.option(
        "-v",
        "--volume",
        "volumes",
        metavar="MOUNT",
        multiple=True,
        help=f"{text}: storage:FOLDER:/PATH[:ro|rw] (repeatable).",
    )
