"""Images that the daemon of the machine builds: ``builder = "buildkit"``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.platform import Home
from tests.engines import docker_daemon

pytestmark = pytest.mark.docker

_SETTINGS = """\
engine = "docker"
stop_grace_seconds = 0.1

[engines.docker]
builder = "buildkit"
"""


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Home]:
    """Somebody in the network of the daemon, whose platform builds with it."""
    inside = ("nsenter", "--net", "--target", str(docker_daemon.process()))
    home = Home(tmp_path / "home", inside)
    (home.data_dir / "server.toml").write_text(_SETTINGS)
    where = f"unix://{docker_daemon.socket_path()}"
    home.ok("up", "--port", "0", NEURO_ENGINE="docker", DOCKER_HOST=where)
    yield home
    home.run("down")


def _push(person: Home, image: str, name: str) -> None:
    login = json.loads((person.data_dir / "run" / "owner.json").read_text())
    registry = urlsplit(login["url"]).netloc
    own = {**os.environ, "DOCKER_CONFIG": str(person.folder / "docker")}
    words = ("login", "--username", "token", "--password-stdin", registry)
    docker_daemon.docker(*words, input=login["token"], env=own)
    pushed = f"{registry}/{login['user']}/{name}"
    docker_daemon.docker("tag", image, pushed)
    docker_daemon.docker("push", pushed, env=own)
    docker_daemon.docker("rmi", pushed)


def test_a_job_runs_in_an_image_that_the_daemon_has_built(person: Home, tmp_path: Path) -> None:
    _push(person, docker_daemon.IMAGE, "small:v1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "words").write_text("hello\n")
    (context / "Dockerfile").write_text(
        "FROM image:small:v1\nCOPY words /words\nRUN cat /words >/made; echo $((6 * 7))\n"
    )
    build = ("image", "build", "-t", "image:trainer:v1", str(context))

    first = person.ok(*build)
    again = person.ok(*build, "-F")

    assert "[internal] load build definition from Dockerfile" in first
    assert " 42\n" in first
    assert "Digest: sha256:" in first
    assert "CACHED" in again
    assert person.ok("run", "image:trainer:v1", "cat", "/made") == "hello\n"
