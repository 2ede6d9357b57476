"""The image that those of projects start from: its small variant, on Debian's own Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import debian
from tests.engines import docker_daemon
from tests.engines.harness import KINDS, Runs, mounted

BASE = Path(__file__).parents[2] / "images" / "base"
FOLDERS = ["code", "config", "data", "notebooks", "results"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    docker_daemon.socket_path()
    with debian.archive().open("rb") as tar:
        docker_daemon.docker("import", "-", "tests/debian", stdin=tar)
    index = tmp_path_factory.mktemp("index")
    fill(index / "simple" / "numpy")
    with served(index) as address:
        docker_daemon.docker(
            *("build", "--network", "host", "--tag", "tests/base"),
            *("--build-arg", "BASE=tests/debian", "--build-arg", "VARIANT=small"),
            *("--build-arg", f"PIP_INDEX_URL={address}/simple", "--build-arg", "TORCH_INDEX="),
            str(BASE),
        )
    return "tests/base"


def fill(folder: Path) -> None:
    """Put what pip would download into a folder."""
    for_debian = ("--python-version", "3.11", "--only-binary", ":all:", "--no-deps")
    requirements = BASE / "small" / "requirements.txt"
    pip = (sys.executable, "-m", "pip", "download", "--quiet", *for_debian, "-r", requirements)
    subprocess.run([*pip, "--dest", folder], check=True)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """An index of packages in the daemon's network."""
    inside = ("nsenter", "--net", "--target", str(docker_daemon.process()))
    program = (
        "import functools, http.server as h, sys\n"
        "handler = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()"
    )
    process = subprocess.Popen(
        [*inside, sys.executable, "-c", program, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def test_it_has_the_folders_of_a_project_and_its_packages(image: str) -> None:
    script = "pwd; ls; command -v python; command -v pip"

    done = docker_daemon.docker("run", "--rm", "--network", "none", image, "sh", "-c", script)

    assert done.stdout.split() == [
        *("/project", *FOLDERS, "/opt/venv/bin/python", "/opt/venv/bin/pip")
    ]


async def test_a_job_of_it_has_its_packages_beside_the_projects_volumes(
    image: str, folder: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "data"
    volume.mkdir()
    (volume / "numbers.txt").write_text("1\n2\n")
    engine = KINDS["docker"].make(folder)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    try:
        done = await runs.run(
            *("python", "-c", "import numpy; print(numpy.loadtxt('data/numbers.txt').sum())"),
            image=image,
            volumes=(mounted(source=volume, target="/project/data"),),
            patience=60,
        )
    finally:
        await runs.close()

    assert done.lines == ["3.0"]
