"""A person whose platform is in the network of the tests' Docker daemon."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from tests.cli.platform import Home
from tests.engines import docker_daemon


def inside() -> tuple[str, ...]:
    """What runs a command in the daemon's network."""
    return "nsenter", "--net", "--target", str(docker_daemon.process())


def push(person: Home, image: str, name: str) -> None:
    """Push an image that the daemon has to the person's platform, by the command line of Docker."""
    login = json.loads((person.data_dir / "run" / "owner.json").read_text())
    registry = urlsplit(login["url"]).netloc
    own = {**os.environ, "DOCKER_CONFIG": str(person.folder / "docker")}
    words = ("login", "--username", "token", "--password-stdin", registry)
    docker_daemon.docker(*words, input=login["token"], env=own)
    pushed = f"{registry}/{login['user']}/{name}"
    docker_daemon.docker("tag", image, pushed)
    docker_daemon.docker("push", pushed, env=own)
    docker_daemon.docker("rmi", pushed)
