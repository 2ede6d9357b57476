"""A new project's image where jobs run in Docker, on a base that it brings itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import debian
from tests.cli.on_docker import inside, push
from tests.cli.platform import Home
from tests.engines import docker_daemon

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

_SETTINGS = """\
engine = "docker"
stop_grace_seconds = 0.1

[engines.docker]
builder = "{builder}"
"""


@pytest.fixture(params=["embedded", "buildkit"])
def person(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """Somebody whose base image is Debian with pip."""
    with debian.archive().open("rb") as tar:
        docker_daemon.docker("import", "-", "tests/debian", stdin=tar)
    home = Home(tmp_path / "home", inside())
    (home.data_dir / "server.toml").write_text(_SETTINGS.format(builder=request.param))
    where = f"unix://{docker_daemon.socket_path()}"
    home.ok("up", "--port", "0", NEURO_ENGINE="docker", DOCKER_HOST=where)
    push(home, "tests/debian", "neuro/base")
    yield home
    home.run("down")


def test_a_job_runs_in_the_image_of_a_new_project(person: Home) -> None:
    person.ok("project", "init", "Neuro Tutorial", "--no-input")
    project = person.work_dir / "neuro-tutorial"
    (project / "requirements.txt").write_text("# nothing to fetch\n")

    built = subprocess.run(
        [*person.prefix, sys.executable, "-m", "neuro.flow", "build", "myimage"],
        cwd=project,
        env=person.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert built.returncode == 0, built.stdout + built.stderr
    assert "RUN python3 -m pip install --no-cache-dir" in built.stdout
    assert built.stdout.splitlines()[-1].startswith("image://default/")
    script = (
        "cat /tmp/environment/requirements.txt; ls -d /var/lib/dpkg; echo $PIP_ROOT_USER_ACTION"
    )
    ran = person.ok("run", "image:neuro_tutorial:v1", "--", "sh", "-c", script)
    assert ran.splitlines() == ["# nothing to fetch", "/var/lib/dpkg", "ignore"]
