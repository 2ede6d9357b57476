"""Bars of what takes long. Importing this loads rich, so it is done for a terminal only."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn

from neuro.cli.output import Output


def bars(out: Output, *columns: ProgressColumn) -> Progress:
    """Bars on standard error, which go when they have ended; what is said goes above them."""
    console = Console(stderr=True, no_color=not out.color)
    return Progress(*columns, console=console, transient=True)
