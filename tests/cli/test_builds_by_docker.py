"""Images that the daemon of the machine builds: ``builder = "buildkit"``."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.on_docker import inside, push
from tests.cli.platform import NEURO, PATIENCE, Home
from tests.engines import docker_daemon

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

_SETTINGS = """\
engine = "docker"
stop_grace_seconds = 0.1

[engines.docker]
builder = "buildkit"
"""


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Home]:
    """Somebody in the network of the daemon, whose platform builds with it."""
    home = Home(tmp_path / "home", inside())
    (home.data_dir / "server.toml").write_text(_SETTINGS)
    where = f"unix://{docker_daemon.socket_path()}"
    home.ok("up", "--port", "0", NEURO_ENGINE="docker", DOCKER_HOST=where)
    yield home
    home.run("down")


def _context(folder: Path, dockerfile: str) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    return str(folder)


def test_a_job_runs_in_an_image_that_the_daemon_has_built(person: Home, tmp_path: Path) -> None:
    push(person, docker_daemon.IMAGE, "small:v1")
    text = "FROM image:small:v1\nCOPY words /words\nRUN cat /words >/made; echo $((6 * 7))\n"
    context = _context(tmp_path / "context", text)
    (tmp_path / "context" / "words").write_text("hello\n")
    build = ("image", "build", "-t", "image:trainer:v1", context)

    first = person.ok(*build)
    again = person.ok(*build, "-F")

    assert "[internal] load build definition from Dockerfile" in first
    assert " 42\n" in first
    assert "Digest: sha256:" in first
    assert "CACHED" in again
    assert person.ok("run", "image:trainer:v1", "cat", "/made") == "hello\n"


def test_what_the_daemon_cannot_build_never_sees_it(person: Home, tmp_path: Path) -> None:
    text = "FROM host\nRUN ls -d /run/nesting /run/nesting/daemon; true\n"

    said = person.ok("image", "build", "-t", "image:x:v1", _context(tmp_path / "context", text))

    assert "NOTE: The platform's own builder builds this" in said
    assert "cannot access '/run/nesting'" in said


def _process(*words: str) -> int:
    """The process that has these words as its command line, once there is one."""
    wanted = b"".join(word.encode() + b"\0" for word in words)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for one in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if one.read_bytes() == wanted:
                    return int(one.parent.name)
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"nobody runs {words}")


def test_a_build_ends_with_its_job(person: Home, tmp_path: Path) -> None:
    push(person, docker_daemon.IMAGE, "small:v1")
    long = str(100_000 + os.getpid())  # nobody else's, and none that an earlier run left
    text = f"FROM image:small:v1\nRUN echo begun; exec sleep {long}\n"
    words = ("image", "build", "-t", "image:never:v1", _context(tmp_path / "context", text))
    with subprocess.Popen(
        [*person.prefix, *NEURO, *words],
        env=person.environment(),
        cwd=person.work_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as building:
        assert building.stdout is not None
        lines = iter(building.stdout)
        job = next(line for line in lines if line.startswith("Job ID: ")).split()[-1]
        assert any(line.endswith(" begun\n") for line in lines)
        command = os.pidfd_open(_process("sleep", long))

        person.ok("kill", job)

        assert select.select([command], [], [], PATIENCE)[0]
        os.close(command)
        building.communicate(timeout=PATIENCE)
