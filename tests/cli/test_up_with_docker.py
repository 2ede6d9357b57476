"""``neuro up`` on a machine with a Docker daemon, or with podman's service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.platform import Home
from tests.engines import docker_daemon

ASK = """
import base64, json, os, urllib.request
login = json.loads(base64.b64decode(os.environ["NEURO_PASSED_CONFIG"]))
print(urllib.request.urlopen(login["url"] + "/ping").status)
"""


@pytest.fixture
def person(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """Somebody in the network of the daemon."""
    kind = "podman" if request.node.get_closest_marker("podman") else "docker"
    inside = ("nsenter", "--net", "--target", str(docker_daemon.process(kind)))
    home = Home(tmp_path / "home", inside)
    yield home
    home.run("down")


@pytest.mark.docker
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


@pytest.mark.docker
def test_a_job_runs_in_an_image_that_was_pushed_to_the_platform(person: Home) -> None:
    daemon = {"DOCKER_HOST": f"unix://{docker_daemon.socket_path()}", "NEURO_ENGINE": "docker"}
    person.ok("up", "--port", "0", **daemon)
    login = json.loads((person.data_dir / "run" / "owner.json").read_text())
    registry, user = urlsplit(login["url"]).netloc, login["user"]
    pushed = f"{registry}/{user}/trainer:v1"
    own = {**os.environ, "DOCKER_CONFIG": str(person.folder / "docker")}

    def push(base: str) -> None:
        docker_daemon.docker("tag", base, pushed)
        docker_daemon.docker("push", pushed, env=own)
        docker_daemon.docker("rmi", pushed)

    words = ("login", "--username", "token", "--password-stdin", registry)
    docker_daemon.docker(*words, input=login["token"], env=own)
    push(docker_daemon.IMAGE)
    assert person.ok("run", "image:trainer:v1", "echo", "one") == "one\n"
    # A newer image of the same tag: what the daemon has is not asked.
    made = docker_daemon.docker("create", docker_daemon.IMAGE).stdout.strip()
    docker_daemon.docker("commit", "--change", 'ENTRYPOINT ["echo", "two"]', made, "tests/two")
    push("tests/two")
    assert person.ok("run", pushed, "three") == "two three\n"
    missing = person.run("run", "image:trainer:v9", "true")

    assert "ErrImagePull" in missing.stderr
    assert "image:trainer:v1" in person.ok("ps", "--all")


@pytest.mark.podman
def test_jobs_run_on_podman_and_reach_the_platform(person: Home) -> None:
    where = f"unix://{docker_daemon.socket_path('podman')}"
    person.ok("up", "--port", "0", NEURO_ENGINE="podman", DOCKER_HOST=where)

    assert person.ok("run", "ubuntu", "cat", "/etc/nsswitch.conf").startswith("passwd: files")
    assert person.ok("run", "--pass-config", "ubuntu", "--", "python3", "-c", ASK) == "200\n"
