"""How far the layers of an image are, in lines; bars are another module's, for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from neuro.cli.context import Context
from neuro.cli.failures import Failure
from neuro.cli.image.place import DOCKER, HTTPS_WANTED
from neuro.cli.output import Output
from neuro.docker.images import Step
from neuro.domain.printable import printable

# What daemons say of a layer that is done, and what is said here.
_DONE = {
    "Pushed": "pushed",
    "Layer already exists": "there already",
    "Mounted from": "there already",
    "Pull complete": "pulled",
    "Already exists": "there already",
}
_MOVING = ("Pushing", "Downloading")


class Lines:
    """A line for each layer that is done."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._lock = Lock()

    def moved(self, part: str, done: int, size: int) -> None:
        pass

    def ended(self, part: str, what: str) -> None:
        with self._lock:
            self._out.note(f"{short(part)}: {what}")


def short(part: str) -> str:
    """A layer as Docker writes it: twelve digits of its digest."""
    return printable(part.rpartition(":")[2][:12])


@contextmanager
def shown(context: Context) -> Iterator[Lines]:
    """Bars on a terminal, lines elsewhere; neither where little is wanted."""
    if context.out.is_terminal and not context.out.quiet:
        from neuro.cli.image.bars import Bars, bars_of_layers

        with bars_of_layers(context.out) as progress:
            yield Bars(context.out, progress)
        return
    yield Lines(context.out)


def follow(steps: Iterable[Step], lines: Lines, host: str) -> None:
    """Show what a daemon tells of a pull or a push. Raises Failure (76) with what went wrong."""
    for step in steps:
        if step.error is not None:
            raise Failure(_reason(step.error, host), DOCKER)
        detail: dict[str, Any] = step.progress_detail or {}
        done, size = detail.get("current"), detail.get("total")
        for said, what in _DONE.items():
            if step.id and step.status.startswith(said):
                lines.ended(step.id, what)
        if step.status in _MOVING and isinstance(done, int) and isinstance(size, int):
            lines.moved(step.id, min(done, size), size)


def _reason(said: str, host: str) -> str:
    if HTTPS_WANTED in said:
        return (
            f"Docker wants HTTPS of {host}, which has none: name it in insecure-registries of"
            " Docker's daemon.json, or copy the image as a file (`neuro image push --help`)."
        )
    return f"The Docker daemon could not do it: {printable(said)}"
