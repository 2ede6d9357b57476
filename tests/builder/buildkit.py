"""The reference: BuildKit in a Docker daemon, by buildx, which is its client.

buildx is what the newest programs bring (``tests.engines.newer_daemons``), or Docker's plugin.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.builder.table import Case
from tests.engines import docker_daemon

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


_LEAST = (1, 48)  # the API of Docker 28: BuildKit is part of it, and knows most of the syntax


@dataclass(frozen=True)
class Theirs:
    """What it makes of a Dockerfile: files or an error, perhaps of syntax that is too new."""

    files: dict[str, tuple[object, ...]]
    config: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def is_older(self) -> bool:
        return "unknown flag" in self.error


def lacking() -> str | None:
    """What this machine lacks to ask it."""
    why = docker_daemon.lacking()
    if why is not None:
        return why
    if _program() is None:
        return "needs docker buildx (apt: docker-buildx)"
    # A daemon that is built of its module has another version than Docker has.
    api = docker_daemon.docker("version", "--format={{.Server.APIVersion}}").stdout.strip()
    if tuple(map(int, api.split("."))) < _LEAST:
        return f"needs Docker 28: the API of this one is {api}"
    return None


def version() -> str:
    """Which BuildKit it is."""
    told = _buildx("inspect").stdout.decode()
    found = re.search(r"^BuildKit version:\s*v?(\S+)", told, re.MULTILINE)
    assert found is not None, told
    return found[1]


def build(case: Case, context: Path, place: Path) -> Theirs:
    """What it builds."""
    file = place / "Dockerfile"
    file.write_text(case.text)
    (place / "Dockerfile.dockerignore").write_text(case.ignore)
    words = ["build", "--provenance=false", "--file", str(file)]
    for name, value in case.arguments.items():
        words.append(f"--build-arg={name}={value}")
    if case.target:
        words.append(f"--target={case.target}")
    ran = _buildx(*words, "--output=type=tar,dest=-", str(context))
    if ran.returncode != 0:
        return Theirs({}, error=ran.stderr.decode())
    image = _buildx(*words, "--output=type=oci,dest=-", str(context))
    assert image.returncode == 0, image.stderr.decode()
    return Theirs(_files(ran.stdout), _config(image.stdout))


@cache
def _program() -> tuple[str, ...] | None:
    given = Path(os.environ.get(docker_daemon.PROGRAMS, "/nowhere"), "docker-buildx")
    alone = str(given) if given.exists() else shutil.which("docker-buildx")
    if alone is not None:
        return (alone,)
    found = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return ("docker", "buildx") if found.returncode == 0 else None


def _buildx(*words: str) -> subprocess.CompletedProcess[bytes]:
    program = _program()
    assert program is not None
    socket = docker_daemon.socket_path()
    environment = {
        **os.environ,
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        # What it remembers is of this daemon alone.
        "BUILDX_CONFIG": str(Path(socket).with_name("buildx")),
        "DOCKER_HOST": f"unix://{socket}",
    }
    return subprocess.run([*program, *words], capture_output=True, env=environment, check=False)


def _config(body: bytes) -> dict[str, Any]:
    """The configuration of the one image in an OCI layout."""
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:

        def read(name: str) -> dict[str, Any]:
            file = tar.extractfile(name)
            assert file is not None
            return json.load(file)  # type: ignore[no-any-return]

        def blob(described: dict[str, Any]) -> dict[str, Any]:
            return read(f"blobs/{described['digest'].replace(':', '/')}")

        found = blob(read("index.json")["manifests"][0])
        if "manifests" in found:
            found = blob(found["manifests"][0])
        return blob(found["config"])


def _files(body: bytes) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        for info in tar:
            path = info.name.strip("/").removeprefix("./")
            if info.type == tarfile.LNKTYPE:
                found[path] = found[info.linkname.strip("/")]
                continue
            content = info.linkname if info.issym() else ""
            if info.isreg():
                file = tar.extractfile(info)
                assert file is not None
                content = hashlib.sha256(file.read()).hexdigest()[:12]
            mode = 0 if info.issym() else info.mode & 0o7777
            kind = oct(_KINDS[info.type])
            if path:
                found[path] = (kind, oct(mode), (info.uid, info.gid), content)
    return found
