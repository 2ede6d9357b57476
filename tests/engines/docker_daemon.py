"""A Docker daemon for the tests of one process, in a network of its own: it writes rules there."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.engines import docker_surroundings

IMAGE = "ubuntu"
_SOCKET = "NEURO_TEST_DOCKER"  # in the environment, for servers in processes of their own
_PATIENCE = 60.0
_CHECKOUT = Path(__file__).parents[2]


@cache
def socket_path() -> str:
    """Where the daemon listens; it is started when it is needed, and ends with this process."""
    given = os.environ.get(_SOCKET)
    if given is None:
        folder = Path(tempfile.mkdtemp(prefix="neuro-docker-"))
        os.environ[_SOCKET] = given = str(folder / "socket")
        _start(folder)
    return given


def is_installed() -> bool:
    """Whether this machine has a daemon to start, as CI must."""
    there = shutil.which("dockerd") is not None or bool(os.environ.get("CI"))
    return os.geteuid() == 0 and there


def process() -> int:
    """The daemon's process."""
    return int(Path(socket_path()).with_name("pid").read_text())


def docker(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of Docker."""
    command = ["docker", "--host", f"unix://{socket_path()}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def _start(folder: Path) -> None:
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
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "sh", "-c", script],
            stdout=log,
            stderr=log,
            cwd=_CHECKOUT,
        )
    atexit.register(_end, daemon, folder)
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(
        ["docker", "--host", f"unix://{folder}/socket", "version"], capture_output=True, check=False
    ).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise AssertionError((folder / "log").read_text())
        time.sleep(0.1)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.engines.docker_image"], stdout=subprocess.PIPE, cwd=_CHECKOUT
    ) as image:
        docker("import", "--change", 'CMD ["bash"]', "-", IMAGE, stdin=image.stdout)


def _end(daemon: subprocess.Popen[bytes], folder: Path) -> None:
    daemon.terminate()
    daemon.wait()
    shutil.rmtree(folder, ignore_errors=True)
