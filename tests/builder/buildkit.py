"""The reference: BuildKit in a Docker daemon, by ``docker buildx``."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

from tests.builder.table import Case
from tests.engines import docker_daemon

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


_LEAST = 28  # of Docker: BuildKit is part of it, and knows most of the syntax


class Refused(Exception):
    """The reference does not build it."""


class Newer(Exception):
    """The reference does not know the syntax."""


def lacking() -> str | None:
    """What this machine lacks to ask it."""
    why = docker_daemon.lacking()
    if why is not None:
        return why
    found = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    if found.returncode != 0:
        return "needs docker buildx (apt: docker-buildx)"
    version = _docker("version", "--format={{.Server.Version}}").stdout.decode()
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < _LEAST:
        return f"needs Docker {_LEAST}: this is {version.strip()}"
    return None


def build(case: Case, context: Path, place: Path) -> dict[str, tuple[object, ...]]:
    """The files of what it builds. Raises Refused, Newer."""
    file = place / "Dockerfile"
    file.write_text(case.text)
    (place / "Dockerfile.dockerignore").write_text(case.ignore)
    words = ["buildx", "build", "--provenance=false", "--file", str(file)]
    for name, value in case.arguments.items():
        words.append(f"--build-arg={name}={value}")
    if case.target:
        words.append(f"--target={case.target}")
    ran = _docker(*words, "--output=type=tar,dest=-", str(context))
    if ran.returncode != 0:
        said = ran.stderr.decode()
        raise Newer(said) if "unknown flag" in said else Refused(said)
    return _files(ran.stdout)


def _docker(*words: str) -> subprocess.CompletedProcess[bytes]:
    host = f"unix://{docker_daemon.socket_path()}"
    environment = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "DOCKER_HOST": host}
    return subprocess.run(["docker", *words], capture_output=True, env=environment, check=False)


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
