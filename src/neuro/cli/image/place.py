"""What LOCAL is: an image of the daemon of this machine, or a file."""

from __future__ import annotations

import os
from pathlib import Path

from neuro.cli.context import Context
from neuro.cli.failures import Failure
from neuro.docker.asking import Refused, Version, chosen_version, silent
from neuro.docker.images import Images
from neuro.docker.places import place_of_client

DOCKER = 76
HTTPS_WANTED = "server gave HTTP response to HTTPS client"


def file_of(local: str) -> Path | None:
    """The file or folder that is meant; None for the name of an image."""
    if local.startswith(("./", "../", "/", "~/")) or local.endswith(".tar") or local in (".", ".."):
        return Path(local).expanduser()
    return None


def daemon(instead: str) -> Images:
    """The daemon of this machine. Raises Failure (76), with what can be done ``instead``."""
    try:
        place = place_of_client(os.environ)
        if place is None:
            raise Failure(
                f"No Docker daemon and no podman service was found: start one, or say in"
                f" DOCKER_HOST where it is. {instead}",
                DOCKER,
            )
        version = _version(place)
        return Images(place, chosen_version(version), is_podman=version.is_podman)
    except ValueError as error:
        raise Failure(f"{str(error)[:1].upper()}{str(error)[1:]}.", DOCKER) from None
    except (OSError, Refused) as error:
        raise away(error) from None


def _version(place: str) -> Version:
    """Raises Failure (76) where no daemon answers, and Refused."""
    try:
        return Images(place).version()
    except OSError as error:
        said = silent(place, error)
        raise Failure(f"{said[:1].upper()}{said[1:]}, or change DOCKER_HOST.", DOCKER) from None


def away(error: OSError | Refused) -> Failure:
    """The failure for a daemon that does not answer, or refuses."""
    if isinstance(error, Refused):
        return Failure(f"The Docker daemon refused: {error.message}", DOCKER)
    why = error.strerror or str(error)
    return Failure(f"The Docker daemon does not answer ({why}): start it.", DOCKER)


def is_without_tls(context: Context) -> bool:
    """Whether the platform's registry speaks HTTP."""
    return context.client.transport.url.startswith("http://")


def credentials(context: Context) -> dict[str, str]:
    """What the daemon logs in with."""
    return {
        "username": "token",
        "password": context.account.token,
        "serveraddress": context.client.images.host,
    }
