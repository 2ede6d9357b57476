"""The reference: BuildKit in a Docker daemon, by ``docker buildx``."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
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


class Refused(Exception):
    """The reference does not build it."""


def lacking() -> str | None:
    """What this machine lacks to ask it."""
    why = docker_daemon.lacking()
    if why is not None:
        return why
    found = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return None if found.returncode == 0 else "needs docker buildx (apt: docker-buildx)"


def build(case: Case, context: Path, place: Path) -> tuple[dict[str, tuple[object, ...]], Any]:
    """Files and history of what it builds. Raises Refused."""
    file = place / "Dockerfile"
    file.write_text(case.text)
    (place / "Dockerfile.dockerignore").write_text(case.ignore)
    words = ["buildx", "build", "--provenance=false", "--file", str(file)]
    for name, value in case.arguments.items():
        words.append(f"--build-arg={name}={value}")
    if case.target:
        words.append(f"--target={case.target}")
    ran = _docker(*words, "--iidfile", str(place / "id"), "--load", str(context))
    if ran.returncode != 0:
        raise Refused(ran.stderr.decode())
    tree = _docker(*words, "--output=type=tar,dest=-", str(context))
    identity = (place / "id").read_text()
    config = json.loads(_docker("image", "inspect", identity).stdout)[0]
    history = _docker("history", "--no-trunc", "--format={{.Size}}|{{.CreatedBy}}", identity)
    _docker("image", "rm", "--force", identity)
    return _files(tree.stdout), (config, history.stdout.decode())


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
