"""A Docker daemon for the tests of one process, in a network of its own: it writes rules there."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from tests.engines import docker_surroundings

IMAGE = "ubuntu"
_SOCKET = "NEURO_TEST_DOCKER"  # in the environment, for servers in processes of their own
_PATIENCE = 60.0
_CHECKOUT = Path(__file__).parents[2]


class CannotStart(Exception):
    """This machine has no daemon for tests; the text says why."""


def socket_path() -> str:
    """Where the daemon listens; it is started when it is needed, and ends with this process.

    Skips the test where it cannot be.
    """
    given = os.environ.get(_SOCKET)
    if given is None:
        given, why = _started()
        if why is not None:
            pytest.skip(why)
    return given


def lacking() -> str | None:
    """What a daemon needs and this machine has not."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        return "needs dockerd (apt: docker.io)"
    return None


@cache
def _started() -> tuple[str, str | None]:
    """Where it listens, and why it does not: it is tried once."""
    folder = Path(tempfile.mkdtemp(prefix="neuro-docker-"))
    socket = str(folder / "socket")
    daemon = _launch(folder)
    try:
        _await(daemon, folder)
        _import_image(socket)
        _docker(socket, "run", "--rm", IMAGE, "true")
    except CannotStart as error:
        _end(daemon, folder)
        return socket, f"dockerd cannot start here: {error}"
    except subprocess.CalledProcessError as error:
        _end(daemon, folder)
        return socket, f"dockerd has no containers here: {error.stderr.strip()}"
    except BaseException:
        _end(daemon, folder)
        raise
    atexit.register(_end, daemon, folder)
    os.environ[_SOCKET] = socket
    return socket, None


def process() -> int:
    """The daemon's process."""
    return int(Path(socket_path()).with_name("pid").read_text())


def docker(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of Docker."""
    return _docker(socket_path(), *words, **options)


def _docker(socket: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = ["docker", "--host", f"unix://{socket}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def _launch(folder: Path) -> subprocess.Popen[bytes]:
    mirror = f"http://127.0.0.1:{docker_surroundings.REGISTRY}"
    options = [
        f"--host unix://{folder}/socket --data-root {folder}/data --exec-root {folder}/exec",
        f"--pidfile {folder}/pid --registry-mirror {mirror} --dns {docker_surroundings.NAMES}",
        "--default-address-pool base=10.128.0.0/12,size=24",
    ]
    script = (
        f"ip link set lo up; ip address add {docker_surroundings.NAMES}/32 dev lo;"
        f" setpriv --pdeathsig TERM {sys.executable} -m {docker_surroundings.__name__} &"
        f" exec dockerd {' '.join(options)}"
    )
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "sh", "-c", script],
            stdout=log,
            stderr=log,
            cwd=_CHECKOUT,
            start_new_session=True,
        )


def _await(daemon: subprocess.Popen[bytes], folder: Path) -> None:
    """Until it answers. Raises CannotStart."""
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(
        ["docker", "--host", f"unix://{folder}/socket", "version"], capture_output=True, check=False
    ).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = (folder / "log").read_text(errors="replace").splitlines()
            raise CannotStart(said[-1] if said else "it says nothing")
        time.sleep(0.1)


def _import_image(socket: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.engines.docker_image"], stdout=subprocess.PIPE, cwd=_CHECKOUT
    ) as image:
        change = ("--change", 'CMD ["bash"]')
        _docker(socket, "import", *change, "-", IMAGE, stdin=image.stdout)


def _end(daemon: subprocess.Popen[bytes], folder: Path) -> None:
    daemon.terminate()
    try:
        daemon.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    with contextlib.suppress(ProcessLookupError):  # its surroundings, where it ended before these
        os.killpg(daemon.pid, signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)
