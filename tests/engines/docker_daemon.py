"""A daemon for the tests of one process, in a network of its own: it writes rules there.

It is Docker's, or podman's service, which answers the command line of Docker as well. It is the one
that this machine has, unless NEURO_TEST_PROGRAMS names a folder with others, or NEURO_TEST_USERLAND
the root of another Debian, whose programs run in the place of this one's: see ``newer_daemons``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
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
DEVICES = "devices"  # beside the socket: where new daemons look for descriptions of such
PROGRAMS, USERLAND = "NEURO_TEST_PROGRAMS", "NEURO_TEST_USERLAND"
# In the environment, for servers in processes of their own.
_SOCKETS = {"docker": "NEURO_TEST_DOCKER", "podman": "NEURO_TEST_PODMAN"}
# Debian's podman takes more descriptors for granted than some machines give, and systemd.
_PODMAN = f"""\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
log_driver = "k8s-file"
dns_servers = ["{docker_surroundings.NAMES}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
"""
# Else all podmans of all tests keep their networks in one folder of the machine.
_NETWORKS = 'network_config_dir = "{folder}/networks"\n'
_REGISTRIES = f"""\
[[registry]]
location = "127.0.0.1:{docker_surroundings.REGISTRY}"
insecure = true
"""
_PATIENCE = 60.0
_CHECKOUT = Path(__file__).parents[2]


class CannotStart(Exception):
    """This machine has no daemon for tests; the text says why."""


def socket_path(kind: str = "docker") -> str:
    """Where the daemon listens; it is started when it is needed, and ends with this process.

    Skips the test where it cannot be.
    """
    given = os.environ.get(_SOCKETS[kind])
    if given is None:
        given, why = _started(kind)
        if why is not None:
            pytest.skip(why)
    return given


def lacking(kind: str = "docker") -> str | None:
    """What a daemon needs and this machine has not."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        return "needs dockerd (apt: docker.io)"
    if kind == "podman" and not all(map(shutil.which, ("podman", "runc", "conmon"))):
        return "needs podman (apt: podman runc netavark aardvark-dns catatonit)"
    return None


@cache
def _started(kind: str) -> tuple[str, str | None]:
    """Where it listens, and why it does not: it is tried once."""
    folder = Path(tempfile.mkdtemp(prefix=f"neuro-{kind}-"))
    (folder / DEVICES).mkdir()
    socket = str(folder / "socket")
    daemon = _launch(folder, kind)
    try:
        _await(daemon, folder)
        _import_image(socket)
        _docker(socket, "run", "--rm", IMAGE, "true")
    except CannotStart as error:
        _end(daemon, folder)
        return socket, f"{kind} cannot start here: {error}"
    except subprocess.CalledProcessError as error:
        _end(daemon, folder)
        return socket, f"{kind} has no containers here: {error.stderr.strip()}"
    except BaseException:
        _end(daemon, folder)
        raise
    atexit.register(_end, daemon, folder)
    os.environ[_SOCKETS[kind]] = socket
    return socket, None


def process(kind: str = "docker") -> int:
    """The daemon's process."""
    return int(Path(socket_path(kind)).with_name("pid").read_text())


def let_go(image: str, kind: str) -> None:
    """Let one come that is held in the daemon's registry."""
    name = image.removeprefix(docker_surroundings.HELD)
    Path(socket_path(kind)).with_name(name).touch()


def devices_folder(kind: str) -> Path:
    """Where the daemon finds descriptions of devices, if it knows of such."""
    return Path(socket_path(kind)).with_name(DEVICES)


def docker(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of Docker."""
    return _docker(socket_path(), *words, **options)


def _docker(socket: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = ["docker", "--host", f"unix://{socket}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def _launch(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    program = _elsewhere(_dockerd(folder) if kind == "docker" else _podman(folder), folder)
    script = (
        f"ip link set lo up; ip address add {docker_surroundings.NAMES}/32 dev lo;"
        f" setpriv --pdeathsig TERM {sys.executable} -m {docker_surroundings.__name__} {folder} &"
        f" {program}"
    )
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "sh", "-c", script],
            stdout=log,
            stderr=log,
            cwd=_CHECKOUT,
            start_new_session=True,
        )


def _elsewhere(program: str, folder: Path) -> str:
    """A shell's words for a daemon, as those for the one of the programs that are asked for."""
    before = ""
    if programs := os.environ.get(PROGRAMS):
        before += f"export PATH={programs}:$PATH; "
    if userland := os.environ.get(USERLAND):
        devices = f"mkdir -p /etc/cdi; mount --bind {folder}/{DEVICES} /etc/cdi; "
        # Where podman keeps what it knows of networks, which are others in each of the tests'.
        networks = "mkdir -p /run/containers; mount -t tmpfs tmpfs /run/containers; "
        before += f"mount --bind {userland}/etc /etc; {devices}{networks}"
        before += f"mount --bind {userland}/usr /usr; "
    words = f"{before}{program}"
    if not userland:
        return words
    # What is mounted outside later, such as volumes of jobs, is there too, if that is shared.
    return f"exec unshare --mount --propagation slave sh -c {shlex.quote(words)}"


def _dockerd(folder: Path) -> str:
    mirror = f"http://127.0.0.1:{docker_surroundings.REGISTRY}"
    options = [
        f"--host unix://{folder}/socket --data-root {folder}/data --exec-root {folder}/exec",
        f"--pidfile {folder}/pid --registry-mirror {mirror} --dns {docker_surroundings.NAMES}",
        "--default-address-pool base=10.128.0.0/12,size=24",
    ]
    devices = f"--cdi-spec-dir {folder / DEVICES}"
    known = "$(dockerd --help | grep -q cdi-spec-dir && echo DEVICES)".replace("DEVICES", devices)
    return f"exec dockerd {' '.join(options)} {known}"


def _podman(folder: Path) -> str:
    (folder / "containers.conf").write_text(_PODMAN + _NETWORKS.format(folder=folder))
    (folder / "registries.conf").write_text(_REGISTRIES)
    return (
        f"export CONTAINERS_CONF={folder}/containers.conf"
        f" CONTAINERS_REGISTRIES_CONF={folder}/registries.conf; echo $$ > {folder}/pid;"
        f" exec {' '.join(_podman_words(folder))} system service --time=0 unix://{folder}/socket"
    )


def _podman_words(folder: Path) -> list[str]:
    return [
        *f"podman --root {folder}/data --runroot {folder}/exec".split(),
        "--storage-driver=overlay",
    ]


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
    if (folder / "containers.conf").exists():  # nobody else ends what podman started
        for words in ("rm --all --force --time 0", "unmount --all"):
            command = _elsewhere(shlex.join([*_podman_words(folder), *words.split()]), folder)
            subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        subprocess.run(["umount", folder / "data" / "overlay"], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
