"""An image on its way between the platform's registry and this machine: a daemon, or a file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from neuro.cli.context import Context
from neuro.cli.image.place import away, credentials, daemon, is_without_tls
from neuro.cli.image.progress import Lines, follow, shown
from neuro.docker.asking import Refused
from neuro.docker.images import SILENCE, Images, Step, name_and_tag
from neuro.domain.images import OwnImage


def move_file(
    context: Context, copied: Callable[[Lines], Coroutine[Any, Any, Any]], stopped: str
) -> None:
    """Copy an image from or to a file. ``stopped`` is said if Ctrl-C or a full disk ends that."""
    try:
        with shown(context) as lines:
            context.run(copied(lines))
    except KeyboardInterrupt:
        context.out.note(f"\nStopped: {stopped}.")
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            context.out.note(f"Stopped: once there is room, {stopped}.")
        raise


@contextmanager
def lent(context: Context, image: OwnImage, instead: str) -> Iterator[Images]:
    """The daemon of this machine, where an image has the registry's name for this long only.

    Raises Failure (76) for a daemon that is not there, or refuses, with what can be done
    ``instead``.
    """
    whole, asked = image.at(context.client.images.host), daemon(instead)
    try:
        had = asked.image(whole) is not None
        try:
            yield asked
        finally:
            if not had:
                with suppress(OSError, Refused):
                    asked.remove_image(whole)
    except (OSError, Refused) as error:
        raise away(error) from None


def move(context: Context, image: OwnImage, way: Callable[..., Iterator[Step]]) -> None:
    """Have a daemon push or pull an image, whichever ``way`` is, and show how far that is.

    Raises Failure (76) with what went wrong, Refused, OSError.
    """
    host = context.client.images.host
    name, tag = name_and_tag(image.at(host))
    with shown(context) as lines:
        steps = way(name, tag, credentials(context), SILENCE, without_tls=is_without_tls(context))
        follow(steps, lines, host)
