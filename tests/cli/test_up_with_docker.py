"""``neuro up`` on a machine with a Docker daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import Home
from tests.engines import docker_daemon

pytestmark = pytest.mark.docker


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Home]:
    """Somebody in the network of the daemon, whose platform has been started."""
    inside = ("nsenter", "--net", "--target", str(docker_daemon.process()))
    home = Home(tmp_path / "home", inside)
    yield home
    home.run("down")


def test_it_finds_the_daemon_and_runs_jobs_in_real_images(person: Home) -> None:
    where = f"unix://{docker_daemon.socket_path()}"
    daemon = {"DOCKER_HOST": where, "NEURO_ENGINE": ""}

    said = person.ok("up", "--port", "0", **daemon)
    assert "Jobs run on docker, which answers at" in said
    assert person.ok("run", "ubuntu", "cat", "/etc/nsswitch.conf") == (
        "passwd: files\ngroup: files\nhosts: files dns\n"
    )
    presets = person.ok("config", "show").partition("Resource Presets")[2]
    assert presets.count("docker") == presets.count("cpu-")

    refused = person.run("up", "--engine", "sandbox")
    assert refused.returncode != 0
    assert "runs jobs on docker: `neuro down`, and then `neuro up --engine sandbox`" in (
        refused.stderr
    )

    person.ok("down")
    assert "Jobs run on docker" not in person.ok("up", "--port", "0", **daemon)
    assert "docker: " in person.ok("server", "status")
    person.ok("down")
    person.ok("up", "--port", "0", "--engine", "sandbox")
    presets = person.ok("config", "show").partition("Resource Presets")[2]
    assert presets.count("sandbox") == presets.count("cpu-")
