"""``neuro-flow build``: images; on a cluster that builds them."""

from __future__ import annotations

import shlex

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import ALL, offer, one_or_all
from neuro.flow.command_line import build_words


@click.command("build", cls=Command, examples="neuro-flow build myimage")
@click.argument("image", shell_complete=offer("images"))
@click.option("-F", "--force-overwrite", is_flag=True, help="Build it even if it exists.")
@pass_context
def command(context: FlowContext, image: str, force_overwrite: bool) -> None:
    """Build IMAGE from its context and Dockerfile, or ALL that have one.

    This needs a cluster that builds images. Elsewhere the command line that would build it is
    shown.
    """
    found = one_or_all("image", image, context.sections.images)
    if image == ALL:
        found = [it for it in found if it.context is not None]
    for it in found:
        if it.context is None:
            raise Failed(
                f"Image {it.id} cannot be built: give it `context:` and `dockerfile:`",
                2,
            )
    for it in found:
        context.out.print(shlex.join(build_words(it, force=force_overwrite)))
    context.out.flush()
    if found:
        raise Failed(
            "This installation cannot build images yet: use an image that is there already."
        )
