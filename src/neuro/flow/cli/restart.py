"""``neuro-flow restart``: another attempt of a bake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.cli.render.json_text import json_option
from neuro.flow.cli.bake import STREAMS
from neuro.flow.cli.bake_names import find_attempt, find_bake
from neuro.flow.cli.bake_options import attempt_option, check_driver, driver_options
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import offer

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake


async def _restart(context: FlowContext, bake: Bake, attempt: int, from_failed: bool) -> Attempt:
    # Somebody else's files are read first, side by side.
    from neuro.flow.batch.submit import restart

    async with context.loop_client() as client:
        return await restart(client, bake, attempt, from_failed)


@click.command(
    "restart",
    cls=Command,
    examples="""
        neuro-flow restart nightly
        neuro-flow restart nightly --no-from-failed
        neuro-flow clear-cache sweep && neuro-flow restart nightly --no-from-failed
    """,
)
@click.argument("bake", metavar="BAKE", shell_complete=offer("ended_bakes"))
@attempt_option("Which attempt to begin from")
@click.option(
    "--from-failed/--no-from-failed",
    default=True,
    show_default=True,
    help="Whether what succeeded is kept.",
)
@driver_options("attempt")
@json_option(STREAMS)
@pass_context
def command(
    context: FlowContext,
    bake: str,
    attempt: int,
    from_failed: bool,
    detach: bool,
    local_executor: bool,
    as_json: bool,
) -> int:
    """Make another attempt of BAKE, which is an id or a name, and watch it as `bake` does.

    It uses the files and parameters that the bake was submitted with; later changes in the project
    need a new bake. --no-from-failed runs everything again, but still takes outcomes from the
    cache.

    Somebody else's bake, which administrators may restart, runs in its owner's name and with its
    owner's rights. It is not restarted where one of its local actions would run on this machine.

    The exit code is 1 also where BAKE has not ended, or somebody else restarts it at this moment.
    """
    check_driver(detach=detach, local_executor=local_executor)
    import asyncio

    from neuro.domain.errors import Conflict
    from neuro.flow.batch.stored import is_foreign
    from neuro.flow.batch.submit import NothingLeft, restart
    from neuro.flow.cli.bake import go_on
    from neuro.flow.cli.bake_json import bake_line
    from neuro.flow.cli.bake_looks import called
    from neuro.flow.cli.local import run_local_phase

    found = find_bake(context, bake)
    if local_executor and is_foreign(context.client, found):
        raise Failed(
            f"Bake {called(found)} is {found.owner}'s: --local-executor would drive it with your"
            " rights. Leave it out, and a job in that name drives it."
        )
    chosen = find_attempt(context, found, attempt)
    try:
        if is_foreign(context.client, found):
            made = asyncio.run(_restart(context, found, chosen.number, from_failed))
        else:
            made = context.run(restart(context.client, found, chosen.number, from_failed))
    except (NothingLeft, Conflict) as error:
        raise Failed(str(error)) from None
    out = context.out
    said = f"Attempt #{made.number} of bake {called(found)} is created."
    out.print(bake_line(found, made) if as_json else found.id if out.quiet else said)
    out.flush()
    ended = run_local_phase(context, None, found, made)
    return go_on(
        context,
        found,
        made,
        ended,
        detach=detach,
        local_executor=local_executor,
        as_json=as_json,
    )
