"""``neuro image pull``: from the platform's registry to this machine."""

from __future__ import annotations

from functools import partial

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.image.moving import lent, move, move_file
from neuro.cli.image.place import file_of
from neuro.cli.lazy import Command
from neuro.docker.images import name_and_tag
from neuro.domain.images import OwnImage
from neuro.domain.printable import printable

_INSTEAD = (
    "Without a daemon an image can be pulled into a file: neuro image pull image:NAME:TAG"
    " ./FILE.tar"
)


@click.command(
    "pull",
    cls=Command,
    examples="""
        neuro image pull image:trainer:v1               # as trainer:v1
        neuro image pull image:/bob/trainer:v1 his:v1
        neuro image pull image:trainer:v1 ./trainer.tar # for `docker load`, skopeo
        neuro image pull image:trainer:v1 ./layout/     # into a folder
    """,
)
@click.argument("remote")
@click.argument("local", required=False)
@pass_context
def command(context: Context, remote: str, local: str | None) -> None:
    """Pull REMOTE from the platform's registry as LOCAL, and print that.

    LOCAL is how it is called in the Docker daemon of this machine, or in podman's service. A LOCAL
    that begins with ./ or / or ends with .tar is a file, and needs no daemon. It takes the place of
    an earlier image, and of no other file.
    """
    image = context.client.images.image(remote)
    name = local or _usual(image)
    context.run(context.client.images.digest(image))  # An unknown one is told before anything.
    out = context.out
    out.note(f"Using remote image '{image}'")
    out.note(f"Using local image '{printable(name)}'")
    out.note("Pulling image...")
    path = file_of(name)
    if path is not None:
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        pulled = partial(context.client.images.pull_file, image, path)
        move_file(context, pulled, "the same command goes on where it was")
    else:
        _pull_to_daemon(context, image, name)
    out.print(printable(name))


def _usual(image: OwnImage) -> str:
    """How an image is called here: without its owner."""
    tag = image.version.partition("@")[0]
    return "/".join(image.uri.segments[1:]) + tag


def _pull_to_daemon(context: Context, image: OwnImage, local: str) -> None:
    with lent(context, image, _INSTEAD) as daemon:
        move(context, image, daemon.pull)
        daemon.tag(image.at(context.client.images.host), *name_and_tag(local))
