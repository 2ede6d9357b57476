"""``neuro-flow build``: the images of a project, built on the platform."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import ALL, offer, one_or_all

if TYPE_CHECKING:
    from neuro.cli.building.wanted import Wanted
    from neuro.flow.evaluate.contexts import ImageRecord


@click.command(
    "build",
    cls=Command,
    examples="""
        neuro-flow build myimage
        neuro-flow build -F myimage        # again, also where it exists
        neuro-flow build ALL
    """,
)
@click.argument("image", shell_complete=offer("images"))
@click.option("-F", "--force-overwrite", is_flag=True, help="Build it even if it exists.")
@pass_context
def command(context: FlowContext, image: str, force_overwrite: bool) -> int:
    """Build IMAGE from its context and Dockerfile, or ALL that have one.

    What the Dockerfile needs is sent to the platform, which builds the image and keeps it in its
    registry. Steps that have not changed are not run again. Ctrl-C ends the build.
    """
    from neuro.cli.building.build import build, say_built

    found = one_or_all("image", image, context.sections.images)
    if image == ALL:
        found = [it for it in found if it.context is not None]
    wanted = [_wanted(context, it, force=force_overwrite) for it in found]
    for it, one in zip(found, wanted, strict=True):
        if len(found) > 1:
            context.out.note(f"Image {it.id}:")
        built = build(context, one)
        if built.exit_code != 0:
            return built.exit_code
        say_built(context, one.images, built)
        context.out.flush()
    return 0


def _wanted(context: FlowContext, image: ImageRecord, *, force: bool) -> Wanted:
    from neuro.cli.building.wanted import Wanted, tagged

    if image.context is None:
        raise Failed(
            f"Image {image.id} cannot be built: give it `context:` and `dockerfile:`",
            2,
        )
    if not image.ref.startswith("image:"):
        raise Failed(
            f"Image {image.id} is '{image.ref}', and what is built is kept in the platform's"
            f" registry: write `ref: image:{image.id}:v1`.",
            2,
        )
    return Wanted(
        context=str(image.context),
        images=(tagged(context, image.ref),),
        dockerfile=str(image.dockerfile_rel) if image.dockerfile_rel else None,
        build_args=image.build_args,
        volumes=image.volumes,
        env=tuple(f"{name}={value}" for name, value in image.env.items()),
        preset=image.build_preset,
        force=force or image.force_rebuild,
        more=tuple(shlex.split(image.extra_kaniko_args or "")),
    )
