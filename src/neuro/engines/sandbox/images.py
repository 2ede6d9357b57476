"""What a run's image is to this engine: folders of layers, and what its configuration asks for.

How a reference becomes that is for ``Images`` to know.
"""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from neuro.domain.images import BASE_LABEL, ON_HOST
from neuro.engines.base import EngineFault, ExitCause, NotReady, PullCredentials, RunSpec
from neuro.engines.images.manifests import ImageConfig
from neuro.engines.images.stopping import Stop
from neuro.engines.sandbox.launch import Request

if TYPE_CHECKING:
    from neuro.engines.images.composing import Base
    from neuro.engines.images.reach import Reach


class ImageRefused(EngineFault):
    """The image cannot be had, now or later: there is none, or it is not for this owner."""

    cause = ExitCause.IMAGE_PULL


class InvalidImageName(ImageRefused):
    """No image can have this name."""

    cause = ExitCause.INVALID_IMAGE


class RegistryAway(NotReady):
    """The image's registry cannot be reached now. ``is_public``: nor is it one of ours."""

    def __init__(self, sentence: str, *, is_public: bool) -> None:
        super().__init__(sentence)
        self.is_public = is_public


@dataclass(frozen=True)
class Root:
    """An image whose ``layers`` are here: folders as overlays have them, the lowest first.

    They stay as long as somebody shares the lock of the file ``lock``, if there is one; ``release``
    gives back ours. ``grant`` names what the image was had by, for those that are made of it.
    """

    layers: tuple[str, ...]
    config: ImageConfig
    lock: str = ""
    grant: str = ""
    release: Callable[[], None] = lambda: None


class Images(Protocol):
    """Where images come from, as far as ``reach``. All of it blocks, and is called in threads."""

    reach: Reach

    def open(self) -> None:
        """Make ready. Raises OSError."""
        ...

    def tidy(self) -> None:
        """Take away what nobody uses; called now and then. Raises OSError."""
        ...

    def ready(
        self,
        reference: str,
        credentials: PullCredentials | None,
        told: Callable[[float], None],
        stop: Stop,
    ) -> Root:
        """The image, fetched if it is not here.

        ``told`` is told from 0 to 1 how far that is, and ``stop`` ends the fetching. Raises
        ImageRefused, RegistryAway, Stopped, and OSError for what this machine lacks.
        """
        ...

    def why_away(self, registry: str) -> str | None:
        """Why there is no way to a public registry, as a sentence; None where there may be one."""
        ...

    def base(self, grant: str) -> Base | None:
        """What an image is to those that are made of it, by the ``grant`` of its root, if known."""
        ...


def with_image(request: Request, spec: RunSpec, root: Root) -> Request:
    """A run's request, with what its image says where the run itself does not.

    Raises EngineFault where nobody says what is to run.
    """
    config = root.config
    on_host = config.labels.get(BASE_LABEL) == ON_HOST
    try:
        argv = spec.command_line(config.entrypoint, config.command)
    except ValueError as error:
        if not on_host:
            raise EngineFault(str(error)) from None
        argv = request.argv  # the userland's own
    folder = spec.working_dir or posixpath.normpath(f"/{config.working_folder}")
    return replace(
        request,
        argv=argv,
        env={**environment(config), **request.env},
        working_dir=folder,
        layers=root.layers,
        on_host=on_host,
        lock=root.lock,
        grant=root.grant,
        user=config.user,
        stop_signal=signal_number(config.stop_signal),
    )


def environment(config: ImageConfig) -> dict[str, str]:
    """An image's own environment; what is none is left out.

    >>> environment(ImageConfig(environment=("PATH=/bin", "EMPTY=", "A=b=c", "alone", "=x")))
    {'PATH': '/bin', 'EMPTY': '', 'A': 'b=c'}
    """
    pairs = [line.partition("=") for line in config.environment]
    return {name: value for name, separator, value in pairs if name and separator}


def signal_number(name: str) -> int:
    """The signal that an image wants to be stopped by: SIGTERM where it names none that there is.

    >>> [signal_number(name) for name in ("", "SIGINT", "quit", "9", "SIGRTMIN+3", "nonsense", "0")]
    [15, 2, 3, 9, 37, 15, 15]
    """
    word = name.strip().upper().removeprefix("SIG")
    base, sign, offset = word.partition("+" if "+" in word else "-")
    number = int(word) if word.isdecimal() and len(word) < 3 else 0
    if not number and f"SIG{base}" in signal.Signals.__members__:
        number = int(signal.Signals[f"SIG{base}"])
        if sign:
            if not (base.startswith("RT") and offset.isdecimal() and len(offset) < 3):
                return int(signal.SIGTERM)
            number += int(offset) if sign == "+" else -int(offset)
    return number if 0 < number < signal.NSIG else int(signal.SIGTERM)
