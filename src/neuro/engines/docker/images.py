"""Which image a run is made of: its name, and how it comes here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from neuro.docker.asking import Refused
from neuro.docker.images import AWAY, FULL, SILENCE, Image, Step, name_and_tag
from neuro.domain.errors import InvalidInput
from neuro.engines.base import PullCredentials
from neuro.engines.docker.api import Daemon
from neuro.engines.images.references import parse
from neuro.engines.sandbox.ending import IMAGE_PULL, INVALID_IMAGE

_LEAST_STEP = 0.01  # of the whole, between two words on how far a pull is
_TRIES = 3  # of an image whose name a build or a save takes away at the same moment
_HERE = ("Download complete", "Pull complete", "Already exists", "Verifying Checksum", "Extracting")


class CannotPull(Exception):
    """There is no such image, or it cannot be had; the text says why."""

    cause = IMAGE_PULL


class InvalidName(CannotPull):
    """No image can have this name."""

    cause = INVALID_IMAGE


def whole_name(reference: str) -> str:
    """The reference with its registry. Raises InvalidName.

    Without that a daemon takes ``sha256:3f`` for the first digits of an id, and podman's service
    finds any image whose name ends so, somebody's own as well.
    """
    try:
        return str(parse(reference))
    except InvalidInput as error:
        raise InvalidName(str(error)) from None


class Progress:
    """How far a pull is, from 0 to 1: what has come of the layers that are known so far.

    Of a push likewise, with its own word for ``working``, and those for what is ``done``.
    """

    def __init__(self, working: str = "Downloading", done: Collection[str] = _HERE) -> None:
        self.value = 0.0
        self._working, self._done = working, done
        self._layers: dict[str, tuple[int, int]] = {}

    def take(self, step: Step) -> bool:
        """Heed one step; whether it is worth telling."""
        detail = step.progress_detail or {}
        current, total = detail.get("current"), detail.get("total")
        if step.status == self._working and isinstance(current, int) and isinstance(total, int):
            self._layers[step.id] = min(current, total), total
        elif step.status in self._done and step.id in self._layers:
            total = self._layers[step.id][1]
            self._layers[step.id] = total, total
        come, all_ = (
            (sum(column) for column in zip(*self._layers.values(), strict=True))
            if (self._layers)
            else (0, 0)
        )
        before = self.value
        # A layer that is found later makes the whole larger: nobody wants to see it go back.
        share = come / all_ if all_ else 0.0
        if share < before + _LEAST_STEP:
            return False
        self.value = min(1.0, share)
        return True


def fetched(
    daemon: Daemon,
    reference: str,
    credentials: PullCredentials | None,
    tell: Callable[[float], None],
) -> Image:
    """The image, pulled where it is not here; ``tell`` is told how far that is.

    One that is pulled with ``credentials`` is the platform's own: its tags move, and not everybody
    may have it, so its registry is always asked. So is any other of this machine: it may be the
    platform's at the port that it had before.

    Raises CannotPull, and OSError where the daemon is away or has no room, or while the platform's
    registry, which is in the server, is away.
    """
    reference = whole_name(reference)
    try:
        image = daemon.image(reference)
        if image is not None and credentials is None and not _is_of_this_machine(reference):
            return image
        name, tag = name_and_tag(reference)
        given = None
        if credentials is not None:
            given = {"username": credentials.user, "password": credentials.password}
        tell(0.0)
        image = None
        for _ in range(_TRIES):
            _follow(daemon.pull(name, tag, given, SILENCE), tell)
            image = daemon.image(reference)
            if image is not None:
                break
    except Refused as refused:
        if FULL in refused.message:
            raise OSError(0, f"Docker has no room for the image: {refused.message}") from None
        if credentials is not None and any(word in refused.message for word in AWAY):
            raise OSError(0, f"the registry is away: {refused.message}") from None
        raise CannotPull(f"the image {reference} cannot be pulled: {refused.message}") from None
    if image is None:
        raise CannotPull(f"the image {reference} was pulled and is not here: it was removed")
    return image


def _is_of_this_machine(reference: str) -> bool:
    # Without a port it is what podman calls the images that were made here: of no registry.
    return reference.startswith(("127.", "localhost:"))


def _follow(steps: Iterable[Step], tell: Callable[[float], None]) -> None:
    progress = Progress()
    for step in steps:
        if step.error is not None:
            raise Refused(500, step.error)
        if progress.take(step):
            tell(progress.value)
