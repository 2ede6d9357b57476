"""Questions that a person answers with yes or no."""

from __future__ import annotations

import click

from neuro.cli.output import Output


def agrees(out: Output, question: str) -> bool:
    """Whether the answer is yes; where it is no, say that nothing was changed."""
    if click.confirm(question, err=True):
        return True
    out.note("Nothing was changed.")
    return False
