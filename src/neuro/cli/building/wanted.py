"""What a person wants to be built, as their options say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from neuro.cli.context import Context
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage

MAX_SECRET = 512 * 1024


class SecretFile(NamedTuple):
    """What RUN steps may read as the secret ``id``."""

    id: str
    content: bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants to be built.

    ``context`` is a folder of this machine, or a storage URI; ``dockerfile`` a path in it, or on
    this machine. ``more`` are further arguments of the builder.
    """

    context: str
    images: tuple[OwnImage, ...]
    dockerfile: str | None = None
    build_args: tuple[str, ...] = ()
    target: str | None = None
    secrets: tuple[SecretFile, ...] = ()
    volumes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    preset: str | None = None
    cache: bool = True
    force: bool = False
    more: tuple[str, ...] = ()


def tagged(context: Context, text: str) -> OwnImage:
    """The image that a build is pushed as. Raises InvalidInput for one that is named by digest."""
    image = context.client.images.image(text)
    if "@" in image.version:
        raise InvalidInput(f"'{text}' is a digest, which only a build can tell: write NAME:TAG.")
    return image


def read_secret(text: str, environ: Mapping[str, str]) -> SecretFile:
    """The secret of ``id=NAME,src=FILE``, ``id=NAME,env=VARIABLE`` or ``id=NAME``.

    The last is the variable NAME, or the file of that name, as in Docker. Raises InvalidInput.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in ("id", "src", "source", "env", "type") or not value:
            raise InvalidInput(
                f"'{text}' is not a secret: write id=NAME,src=FILE, id=NAME,env=VARIABLE or"
                " id=NAME,src=secret:KEY."
            )
        given["src" if name == "source" else name] = value
    id_ = given.get("id")
    if id_ is None:
        raise InvalidInput(f"'{text}' has no id: write id=NAME,src=FILE, as the Dockerfile asks.")
    variable = given.get("env") or (id_ if "src" not in given and id_ in environ else None)
    if variable is not None:
        if variable not in environ:
            raise InvalidInput(f"The variable {variable} of the secret '{id_}' is not set here.")
        content = environ[variable].encode(errors="surrogateescape")
    else:
        content = Path(given.get("src", id_)).expanduser().read_bytes()
    if len(content) > MAX_SECRET:
        raise InvalidInput(f"The secret '{id_}' has over {MAX_SECRET:,} bytes.")
    return SecretFile(id_, content)
