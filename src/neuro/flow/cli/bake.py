"""``neuro-flow bake``: run a batch, and watch its tasks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.cli.render.json_text import json_option
from neuro.flow.cli.bake_names import is_bake_id
from neuro.flow.cli.bake_options import check_driver, driver_options
from neuro.flow.cli.batch_params import batch_argument, check_presets, param_options, plan_of
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, TaskStatus
    from neuro.flow.batch.plan import Plan

STREAMS = "Print a line of JSON for each change of the bake and its tasks."


@click.command(
    "bake",
    cls=Command,
    examples="""
        neuro-flow bake train
        neuro-flow bake train -p lr 0.1 -p epochs 20 --name wide
        neuro-flow bake train --meta-from-file params.yml -t nightly
        neuro-flow -q bake train --detach          # prints the bake's id
        neuro-flow bake train --json | jq -c 'select(.event == "task")'
    """,
)
@batch_argument
@param_options
@click.option(
    "-n", "--name", metavar="NAME", help="The bake's name; free again when the bake is over."
)
@click.option("-t", "--tag", "tags", multiple=True, help="A tag of the bake (repeatable).")
@driver_options("bake")
@json_option(STREAMS)
@pass_context
def command(
    context: FlowContext,
    batch: str,
    param: tuple[tuple[str, str], ...],
    file: Path | None,
    name: str | None,
    tags: tuple[str, ...],
    detach: bool,
    local_executor: bool,
    as_json: bool,
) -> int:
    """Run BATCH, which is the file .neuro/BATCH.yml, and watch its tasks.

    Every mistake in its files is reported before anything is started. Ctrl-C leaves the bake
    running (exit code 0); with --local-executor it cancels the bake (130).

    The exit code is 0 where the bake succeeded, 1 where it failed or was cancelled.
    """
    check_driver(detach=detach, local_executor=local_executor)
    if name is not None and is_bake_id(name):
        raise click.UsageError(f"{name} has the shape of a bake's id: choose another name")
    plan = plan_of(context, batch, param, file)
    check_presets(context, plan)
    bake, attempt = _submit(context, plan, name, tags)
    out = context.out
    if as_json:
        from neuro.flow.cli.bake_json import bake_line

        out.print(bake_line(bake, attempt))
    elif out.quiet:
        out.print(bake.id)
    else:
        called = f" ({name})" if name else ""
        out.print(f"Bake {bake.id}{called} of batch {bake.batch} is created.")
    out.flush()
    from neuro.flow.model import NodeKind

    ended = None
    if any(node.kind is NodeKind.LOCAL for node in plan.nodes.values()):
        from neuro.flow.cli.local import run_local_phase

        ended = run_local_phase(context, plan.workflow, bake, attempt)
    return go_on(
        context,
        bake,
        attempt,
        ended,
        detach=detach,
        local_executor=local_executor,
        as_json=as_json,
    )


def _submit(
    context: FlowContext, plan: Plan, name: str | None, tags: tuple[str, ...]
) -> tuple[Bake, Attempt]:
    from neuro.flow.batch.submit import submit

    client = context.client
    if not any(isinstance(image.context, Path) for image in plan.images):
        return context.run(submit(client, plan, name=name, tags=[*tags]))
    from neuro.cli.storage.items import Items
    from neuro.cli.storage.progress import showing
    from neuro.dockerfile.tree import DockerfileError

    try:
        with showing(context, Items(context)) as progress:
            return context.run(submit(client, plan, name=name, tags=[*tags], progress=progress))
    except DockerfileError as error:
        raise Failed(str(error)) from None


def go_on(
    context: FlowContext,
    bake: Bake,
    attempt: Attempt,
    ended: TaskStatus | None,
    *,
    detach: bool,
    local_executor: bool,
    as_json: bool,
) -> int:
    """Have an attempt driven, unless its local actions ended it, and watch; the exit code."""
    if ended is not None:
        return _watch(context, bake, attempt, as_json=as_json)
    if local_executor:
        from neuro.flow.cli.local import LocalDriver
        from neuro.flow.cli.watch import watch_to_end

        driver = LocalDriver(context, bake, attempt)
        driver.start()
        return driver.exit_code(watch_to_end(context, bake, attempt, driver, as_json=as_json))
    try:
        context.run(context.client.bakes.start_executor(attempt.id))
    except BaseException:
        from neuro.domain.errors import PlatformError
        from neuro.flow.cli.cancel import cancel

        # Nobody would drive it, and its name would be taken.
        with suppress(PlatformError):
            cancel(context, attempt)
        raise
    if detach:
        if not context.out.quiet and not as_json:
            from neuro.flow.cli.bake_looks import word_of

            context.out.print(f"See how it goes on: neuro-flow inspect --watch {word_of(bake)}")
        return 0
    return _watch(context, bake, attempt, as_json=as_json)


def _watch(context: FlowContext, bake: Bake, attempt: Attempt, *, as_json: bool) -> int:
    # Imported once a main job is starting, beside it.
    from neuro.flow.cli.watch import watch_to_end

    return watch_to_end(context, bake, attempt, as_json=as_json)
