"""The tests of daemons on newer ones than this machine has.

``python -m tests.engines.newer_daemons WHICH [PYTEST'S WORDS]`` brings them into ``.cache/daemons``
once, and runs the tests. WHICH is a release of Debian, whose Docker and podman run in the place of
this machine's (``trixie``, ``forky``), or ``newest``: Docker and what it needs, built of their Go
modules. With ``--`` and Python's words it runs another program so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.engines.docker_daemon import PROGRAMS, USERLAND

_CHECKOUT = Path(__file__).parents[2]
_CACHE = _CHECKOUT / ".cache" / "daemons"
NEWEST = "newest"
_MOBY = "github.com/moby/moby/v2/cmd"
_CONTAINERD = "github.com/containerd/containerd/v2"
# By the name of the program: its package, the version of the module, and words for `go build`.
_MODULES = {
    "dockerd": (f"{_MOBY}/dockerd", "v2.0.0-beta.24", ()),
    "docker-proxy": (f"{_MOBY}/docker-proxy", "v2.0.0-beta.24", ()),
    **{
        name: (
            f"{_CONTAINERD}/cmd/{name}",
            "v2.4.2",
            ("-tags=no_btrfs", f"-ldflags=-X {_CONTAINERD}/version.Version=2.4.2"),
        )
        for name in ("containerd", "containerd-shim-runc-v2")
    },
    # Without the tag no container starts: daemons ask for a filter of system calls.
    "runc": (
        "github.com/opencontainers/runc",
        "v1.5.3",
        ("-tags=seccomp", "-ldflags=-X main.version=1.5.3"),
    ),
    # BuildKit's client: BuildKit itself is part of the daemon.
    "docker-buildx": ("github.com/docker/buildx/cmd/buildx", "v0.38.2", ()),
}
_PACKAGES = (
    "docker.io podman runc conmon netavark aardvark-dns catatonit iproute2 iptables nftables"
    " ca-certificates"
)


class Lacking(Exception):
    """This machine cannot bring them; the text says what to install."""


def build(folder: Path) -> None:
    """Make the newest programs, those that are not there yet. Raises Lacking."""
    if shutil.which("go") is None:
        raise Lacking("needs Go 1.26 or later, gcc, pkg-config and libseccomp-dev")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, version, words) in _MODULES.items():
        if (folder / name).exists():
            continue
        print(f"building {name} {version}", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = Path(place) / name
            for command in (
                ["go", "mod", "init", "build"],
                ["go", "get", "-tool", f"{package}@{version}"],
                ["go", "build", "-trimpath", *words, "-o", str(made), package],
            ):
                subprocess.run(command, cwd=place, check=True)
            made.rename(folder / name)


def install(release: str, folder: Path) -> None:
    """Make the userland of a release of Debian with its daemons. Raises Lacking."""
    if folder.exists():
        return
    if shutil.which("mmdebstrap") is None:
        raise Lacking("needs mmdebstrap (apt install mmdebstrap)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / "root"
        words = [
            *("--mode=root", "--variant=essential"),
            f"--include={','.join(_PACKAGES.split())}",
            "--aptopt=APT::Install-Recommends false",
            # A mirror may be behind: these programs are tried, and serve nobody.
            "--aptopt=Acquire::Check-Valid-Until false",
        ]
        subprocess.run(["mmdebstrap", *words, release, made], check=True)
        made.rename(folder)


def main() -> int:
    """See the module."""
    which, *words = sys.argv[1:] or [NEWEST]
    folder = _CACHE / which
    try:
        if which == NEWEST:
            build(folder)
            setting, marks = PROGRAMS, ["docker"]
        else:
            install(which, folder)
            setting, marks = USERLAND, ["docker", "podman"]
    except Lacking as error:
        print(error, file=sys.stderr)
        return 2
    if words[:1] == ["--"]:
        return _run(words[1:], {setting: str(folder)})
    # By the mark's name alone, the whole contract of engines has it.
    tests = ["-m", "pytest", *(words or ["tests/engines"]), "-m"]
    failed = [mark for mark in marks if _run([*tests, mark], {setting: str(folder)}) != 0]
    if failed:
        print(f"tests failed on {which}: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(words: Sequence[str], setting: dict[str, str]) -> int:
    # What the tests mount is to be seen by a daemon that has a userland of its own: see `unshare`
    # in docker_daemon.py.
    command = ["unshare", "--mount", "--propagation", "shared", sys.executable, *words]
    return subprocess.run(command, cwd=_CHECKOUT, env=os.environ | setting, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
