"""``neuro image push``: from this machine to the platform's registry."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import NOT_FOUND, Failure
from neuro.cli.image.place import away, credentials, daemon, file_of, is_without_tls
from neuro.cli.image.progress import follow, shown
from neuro.cli.lazy import Command
from neuro.docker.asking import Refused
from neuro.docker.images import SILENCE, name_and_tag
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
        _push_file(context, path, image)
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


def _push_file(context: Context, path: Path, image: OwnImage) -> None:
    try:
        with shown(context) as lines:
            context.run(context.client.images.push_file(path, image, lines))
    except KeyboardInterrupt:
        context.out.note("\nStopped: the same command sends only what is missing.")
        raise


def _push_from_daemon(context: Context, local: str, image: OwnImage) -> None:
    host, asked = context.client.images.host, daemon(_INSTEAD)
    name, tag = name_and_tag(image.at(host))
    try:
        had = asked.image(image.at(host)) is not None
        try:
            asked.tag(local, name, tag)
        except Refused as refused:
            if refused.status == 404:
                raise Failure(
                    f"There is no image '{printable(local)}' in the Docker daemon of this machine:"
                    " `docker images` lists those that are. A file begins with ./",
                    NOT_FOUND,
                ) from None
            raise
        try:
            with shown(context) as lines:
                steps = asked.push(
                    name, tag, credentials(context), SILENCE, without_tls=is_without_tls(context)
                )
                follow(steps, lines, host)
        finally:
            if not had:
                with suppress(OSError, Refused):
                    asked.remove_image(image.at(host))
    except (OSError, Refused) as error:
        raise away(error) from None
