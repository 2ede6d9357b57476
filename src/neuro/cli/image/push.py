"""``neuro image push``: from this machine to the platform's registry."""

from __future__ import annotations

from functools import partial

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import NOT_FOUND, Failure
from neuro.cli.image.moving import lent, move, move_file
from neuro.cli.image.place import file_of
from neuro.cli.lazy import Command
from neuro.docker.asking import Refused
from neuro.docker.images import name_and_tag
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage
from neuro.domain.printable import printable

_INSTEAD = (
    "Without a daemon an image can be pushed from a file: neuro image push ./FILE.tar"
    " image:NAME:TAG, where FILE.tar is what `docker save`, `skopeo` or `buildah` wrote."
)


@click.command(
    "push",
    cls=Command,
    examples="""
        neuro image push trainer:v1                     # as image:trainer:v1
        neuro image push trainer image:/team/trainer:v2
        neuro image push ./trainer.tar image:trainer:v1 # of `docker save`
        neuro image push ./layout image:trainer:v1      # an OCI layout
    """,
)
@click.argument("local")
@click.argument("remote", required=False)
@pass_context
def command(context: Context, local: str, remote: str | None) -> None:
    """Push LOCAL to the platform's registry as REMOTE, and print its URI.

    LOCAL is an image of the Docker daemon of this machine, or of podman's service. A LOCAL that
    begins with ./ or / or ends with .tar is a file, and needs no daemon.
    """
    path = file_of(local)
    if path is not None and remote is None:
        raise InvalidInput(
            f"Say how {printable(local)} is called on the platform: neuro image push"
            f" {printable(local)} image:NAME:TAG"
        )
    image = context.client.images.image(_usual(local) if remote is None else remote)
    if "@" in image.version:
        raise InvalidInput(f"'{image}' has a digest, which is not known before: write a tag.")
    out = context.out
    out.note(f"Using local image '{printable(local)}'")
    out.note(f"Using remote image '{image}'")
    out.note("Pushing image...")
    if path is not None:
        pushed = partial(context.client.images.push_file, path, image)
        move_file(context, pushed, "the same command sends only what is missing")
    else:
        _push_from_daemon(context, local, image)
    out.print(str(image))


def _usual(local: str) -> str:
    """The name of LOCAL without its registry is its name on the platform."""
    first, slash, _ = local.partition("/")
    if "@" in local or (slash and ("." in first or ":" in first or first == "localhost")):
        raise InvalidInput(
            f"Say how {printable(local)} is called on the platform: neuro image push"
            f" {printable(local)} image:NAME:TAG"
        )
    return local


def _push_from_daemon(context: Context, local: str, image: OwnImage) -> None:
    with lent(context, image, _INSTEAD) as daemon:
        try:
            daemon.tag(local, *name_and_tag(image.at(context.client.images.host)))
        except Refused as refused:
            if refused.status == 404:
                raise Failure(
                    f"There is no image '{printable(local)}' in the Docker daemon of this machine:"
                    " `docker images` lists those that are. A file begins with ./",
                    NOT_FOUND,
                ) from None
            raise
        move(context, image, daemon.push)
