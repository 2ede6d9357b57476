"""``neuro-flow schedule``: have the server start a batch by the clock."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.batch_params import batch_argument, param_options, plan_of
from neuro.flow.cli.context import FlowContext, pass_context


@click.command(
    "schedule",
    cls=Command,
    examples="""
        neuro-flow schedule nightly
        neuro-flow schedule nightly -p lr 0.1
    """,
)
@batch_argument
@param_options
@click.option("-t", "--tag", "tags", multiple=True, help="A tag of the bakes (repeatable).")
@pass_context
def command(
    context: FlowContext,
    batch: str,
    param: tuple[tuple[str, str], ...],
    file: Path | None,
    tags: tuple[str, ...],
) -> None:
    """Have the server start BATCH at the times that `schedule:` in its file tells.

    The files are sent as they are now: after a change, schedule it again.
    """
    plan = plan_of(context, batch, param, file)
    assert plan.schedule is not None
