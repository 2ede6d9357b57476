"""``neuro-flow restart``: another attempt of a bake."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.bake_names import LAST, find_attempt, find_bake
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import offer


@click.command(
    "restart",
    cls=Command,
    examples="""
        neuro-flow restart nightly
        neuro-flow restart nightly --no-from-failed
        neuro-flow clear-cache sweep && neuro-flow restart nightly --no-from-failed   # all anew
    """,
)
@click.argument("bake", metavar="BAKE", shell_complete=offer("ended_bakes"))
@click.option(
    "-a",
    "--attempt",
    type=int,
    default=LAST,
    metavar="N",
    help="Which attempt to begin from; by default, the last.",
    shell_complete=offer("attempts"),
)
@click.option(
    "--from-failed/--no-from-failed",
    default=True,
    show_default=True,
    help="Whether what succeeded is kept.",
)
@click.option("--detach", is_flag=True, help="Do not watch: end when the attempt is started.")
@click.option(
    "--local-executor",
    is_flag=True,
    help="Drive the bake from this terminal instead of a job of its own.",
)
@pass_context
def command(
    context: FlowContext,
    bake: str,
    attempt: int,
    from_failed: bool,
    detach: bool,
    local_executor: bool,
) -> int:
    """Make another attempt of BAKE, which is an id or a name, and watch it as `bake` does.

    It has the files and parameters that the bake was submitted with: what was changed in the
    project since then needs a new bake. Where --no-from-failed runs everything again, outcomes that
    the cache keeps are taken all the same.
    """
    if detach and local_executor:
        raise click.UsageError("--local-executor needs this terminal: it cannot be detached")
    from neuro.domain.errors import Conflict, InvalidInput
    from neuro.flow.batch.submit import restart
    from neuro.flow.cli.bake import go_on
    from neuro.flow.cli.bake_looks import called
    from neuro.flow.cli.local import run_local_phase

    found = find_bake(context, bake)
    chosen = find_attempt(context, found, attempt)
    try:
        made = context.run(restart(context.client, found, chosen.number, from_failed))
    except (Conflict, InvalidInput) as error:
        raise click.UsageError(str(error)) from None
    out = context.out
    said = f"Attempt #{made.number} of bake {called(found)} is created."
    out.print(found.id if out.quiet else said)
    out.flush()
    ended = run_local_phase(context, None, found, made)
    return go_on(context, found, made, ended, detach=detach, local_executor=local_executor)
