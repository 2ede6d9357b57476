"""``neuro-flow cancel``: stop a bake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.bake_names import find_attempt, find_bake
from neuro.flow.cli.bake_options import attempt_option
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import offer

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt


@click.command(
    "cancel",
    cls=Command,
    examples="neuro-flow cancel nightly",
)
@click.argument("bake", metavar="BAKE", shell_complete=offer("open_bakes"))
@attempt_option()
@pass_context
def command(context: FlowContext, bake: str, attempt: int) -> None:
    """Cancel BAKE, which is an id or a name: its tasks are stopped, and no others begin.

    Tasks with `enable: ${{ always() }}` still run: they clean up.
    """
    from neuro.domain.bakes import TaskStatus
    from neuro.flow.cli.bake_looks import called

    found = find_bake(context, bake)
    chosen = find_attempt(context, found, attempt)
    kept = cancel(context, chosen) if not chosen.result.is_finished else None
    if kept is None or kept.result is not TaskStatus.CANCELLED:
        # It may have ended in the meantime.
        ended = kept or chosen
        raise Failed(
            f"Attempt #{ended.number} of bake {called(found)} is over already:"
            f" {ended.result.value}."
        )
    said = f"Attempt #{chosen.number} of bake {called(found)} is cancelled."
    context.out.print(found.id if context.out.quiet else said)


def cancel(context: FlowContext, attempt: Attempt) -> Attempt:
    """Mark an attempt as cancelled, for its executor to see. Returns it as stored."""
    from neuro.domain.bakes import AttemptRequest, TaskStatus

    request = AttemptRequest(
        bake_id=attempt.bake_id,
        number=attempt.number,
        result=TaskStatus.CANCELLED,
        configs_meta=attempt.configs_meta,
        executor_id=attempt.executor_id,
        message=attempt.message,
    )
    return context.run(context.client.bakes.replace_attempt(request))
