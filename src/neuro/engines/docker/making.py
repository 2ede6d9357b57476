"""From an order to a container that runs, and back to nothing. All of it blocks."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuro.docker.asking import Refused
from neuro.docker.images import FULL, ImageConfig
from neuro.engines.base import RunSpec
from neuro.engines.docker import containers
from neuro.engines.docker.api import Daemon
from neuro.engines.docker.images import fetched
from neuro.engines.docker.order import Mount, Order

_TRIES = 5  # of a network or an image that goes away at the moment when a container needs it


class Impossible(Exception):
    """The run can never begin; the text says why."""


class Stopped(Exception):
    """Nobody wants the run any more."""


@dataclass(frozen=True)
class Made:
    """A container. ``path`` is where its commands are looked for."""

    identity: str
    path: str


def make(
    daemon: Daemon,
    order: Order,
    mounts: Sequence[Mount],
    word: str,
    tell: Callable[[float], None],
    check: Callable[[], None],
    end_of_pull: Callable[[], None],
    made: Callable[[Made], None],
) -> None:
    """Make the run's container and start it; ``made`` is told in between.

    ``check`` raises Stopped where nobody wants it, and ``end_of_pull`` for the last time.

    Raises Impossible, CannotPull, and OSError for what may be tried again.
    """
    spec = order.spec

    def told(progress: float) -> None:
        check()
        tell(progress)

    image = fetched(daemon, spec.image, spec.pull, told)
    end_of_pull()
    for number in range(_TRIES):
        path, command = _commanded(image.config or ImageConfig(), spec, word)
        try:
            ensure_network(daemon, order.folder, order.installation, spec.neighbours)
            identity = _create(daemon, order, image.id, command, mounts)
            made(Made(identity, path))
            _start(daemon, identity)
            return
        except Refused as refused:
            is_last = number + 1 == _TRIES
            if _is_gone(refused) and not is_last:
                image = fetched(daemon, spec.image, spec.pull, lambda _: None)
                continue
            if "network" in refused.message and not is_last:
                time.sleep(0.05 * (number + 1))
                continue
            if FULL in refused.message:
                raise OSError(0, f"Docker cannot start it now: {refused.message}") from None
            raise Impossible(_sentence(refused, order)) from None


def _commanded(config: ImageConfig, spec: RunSpec, word: str) -> tuple[str, list[str]]:
    """Where commands are looked for, and the container's own. Raises Impossible."""
    if (why := containers.unfit(config)) is not None:
        raise Impossible(why)
    try:
        argv = spec.command_line(config.entrypoint or (), config.cmd or ())
    except ValueError as error:
        raise Impossible(str(error)) from None
    path = containers.search_path(spec, config)
    return path, containers.launched(word, argv, path)


def _is_gone(refused: Refused) -> bool:
    """Whether the image was removed after it was looked at: with its last name it goes itself."""
    return refused.status == 404 and "image" in refused.message.lower()


def _create(
    daemon: Daemon,
    order: Order,
    image: str,
    command: Sequence[str],
    mounts: Sequence[Mount],
) -> str:
    body = containers.container_body(
        order.installation, order.spec, image, command, mounts, order.processes
    )
    name = containers.name_of(order.installation, order.ref)
    try:
        return daemon.make_container(name, body)
    except Refused as refused:
        if refused.status != 409:
            raise
        # Of a try that was cut off: this keeper is the only one that may make it.
        daemon.remove_container(name)
        return daemon.make_container(name, body)


def _start(daemon: Daemon, identity: str) -> None:
    try:
        daemon.start_container(identity)
    except BaseException:
        daemon.remove_container(identity)
        raise


def ensure_network(daemon: Daemon, folder: str, installation: str, neighbours: str) -> None:
    """Make the network of some runs, if there is none. ``folder`` is the engine's."""
    name = containers.network_of(installation, neighbours)
    if daemon.network(name) is not None:
        return
    # Two at once would get two networks of one name.
    with open(f"{folder}/networks.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if daemon.network(name) is None:
            made = containers.network_body
            if daemon.is_podman:
                made = containers.isolated_network_body
            daemon.make_network(made(installation, neighbours))


def _sentence(refused: Refused, order: Order) -> str:
    folder = order.spec.working_dir
    if folder and folder in refused.message and "is not a directory" in refused.message:
        return f"the working directory {folder} is a file, not a folder"
    return f"Docker cannot start it: {refused.message}"


def unmake(daemon: Daemon, order: Order, identity: str | None) -> bool:
    """Remove the run's container; whether the daemon ended it for the memory limit.

    Raises OSError where the daemon is away.
    """
    name = identity or containers.name_of(order.installation, order.ref)
    found = daemon.container(name)
    try:
        daemon.remove_container(name)
    except Refused as refused:
        raise OSError(0, refused.message) from None
    if order.spec.neighbours:
        try:
            daemon.remove_network(containers.network_of(order.installation, order.spec.neighbours))
        except Refused:
            pass  # a neighbour is still there
    return found is not None and found.state.out_of_memory


def execute(daemon: Daemon, made: Made, word: str, argv: Sequence[str], *, tty: bool) -> None:
    """Start a command beside the run's own, by a launcher that says ``word``. Raises OSError."""
    body = {
        "Cmd": containers.launched(word, argv or [""], made.path),
        "Env": ["TERM=xterm-256color"] if tty else [],
    }
    try:
        daemon.execute(made.identity, body)
    except Refused as refused:
        raise OSError(0, refused.message) from None
