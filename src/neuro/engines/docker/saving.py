"""From a container that runs to an image of its files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from neuro.docker.asking import Refused
from neuro.docker.drafts import new_draft
from neuro.docker.images import AWAY, FULL, SILENCE, ImageConfig, name_and_tag
from neuro.engines.base import EngineFault, NotReady, RunNotFound, SaveStep, Saving
from neuro.engines.docker.api import Container, Daemon
from neuro.engines.docker.containers import USUAL_PATH
from neuro.engines.docker.images import Progress

_SENT = ("Pushed", "Layer already exists")
_SHELL = ["/bin/sh"]  # of an image that had no command: a daemon keeps the container's otherwise


def image_config(own: ImageConfig, container: Container) -> dict[str, Any]:
    """What an image of a container says, which is what the image that it is made of says.

    A daemon adds all that it finds in the container, and takes nothing out: so what a run was given
    is there with an empty value.
    """
    env = _pairs(own.env or ())
    given = dict.fromkeys(_pairs(container.config.env or ()), "")
    if "PATH" in given:  # without a value no command is found
        given["PATH"] = USUAL_PATH
    labels = dict.fromkeys(container.config.labels or (), "")
    return {
        "Entrypoint": own.entrypoint or [],
        "Cmd": own.cmd or ([] if own.entrypoint else _SHELL),
        "Env": [f"{name}={value}" for name, value in (given | env).items()],
        "Labels": labels | (own.labels or {}),
        "WorkingDir": own.working_dir or "/",
        "User": own.user or "",
        "Healthcheck": own.healthcheck or {"Test": []},
    }


def _pairs(env: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in env)}


def commit(daemon: Daemon, container: str, reference: str) -> None:
    """Keep a container's files as an image of the daemon's. It blocks.

    Raises RunNotFound where the container is gone, EngineFault, OSError.
    """
    if daemon.is_podman:  # it would keep the run's environment, and what secrets are in that
        raise EngineFault("Images of jobs are made by the engine docker, and not by podman.")
    found = daemon.container(container)
    if found is None or not found.state.running:
        raise RunNotFound(container)
    base = daemon.image(found.image)
    own = (base.config if base is not None else None) or ImageConfig()
    draft = new_draft(time.time())
    try:
        # An image of Docker's also holds how its container was, with the environment of that; so
        # the one that is kept is made of a container that was given nothing.
        daemon.commit(found.id, *name_and_tag(draft), image_config(own, found))
        try:
            _commit_anew(daemon, draft, own, reference)
        finally:
            daemon.remove_image(draft)
    except Refused as refused:
        kind = NotReady if FULL in refused.message else EngineFault
        raise kind(f"the image {reference} cannot be made: {refused.message}") from None


class Save:
    """One image of a container, on its way to a registry. ``run`` blocks, ``stop`` ends it."""

    def __init__(
        self, daemon: Daemon, container: str, saving: Saving, told: Callable[[SaveStep], None]
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._saving = saving
        self._told = told
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped.set()

    def run(self) -> None:
        """Make the image and push it. Raises as ``commit`` does, and NotReady.

        The daemon keeps it no longer than that: it would give it to everybody.
        """
        image = self._saving.image
        commit(self._daemon, self._container, image)
        try:
            self._told(SaveStep(0.0))
            self._push(*name_and_tag(image))
        except Refused as refused:
            message = refused.message
            is_passing = FULL in message or any(word in message for word in AWAY)
            kind = NotReady if is_passing else EngineFault
            raise kind(f"the image {image} cannot be pushed: {message}") from None
        finally:
            with suppress(Refused):  # another save to this name has removed it
                self._daemon.remove_image(image)

    def _push(self, name: str, tag: str) -> None:
        push = self._saving.push
        credentials = {"username": push.user, "password": push.password}
        progress = Progress("Pushing", _SENT)
        for step in self._daemon.push(name, tag, credentials, SILENCE, without_tls=True):
            if self._stopped.is_set():
                return  # the daemon notices that nobody listens
            if step.error is not None:
                raise Refused(500, step.error)
            if progress.take(step):
                self._told(SaveStep(progress.value))
        self._told(SaveStep(1.0))


def _commit_anew(daemon: Daemon, draft: str, own: ImageConfig, reference: str) -> None:
    copy = daemon.make_container("", {"Image": draft})
    try:
        found = daemon.container(copy)
        assert found is not None
        daemon.commit(copy, *name_and_tag(reference), image_config(own, found))
    finally:
        daemon.remove_container(copy)
