"""A registry with a small base image, and builds that pull from it and push to it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from neuro.builder.program import run
from neuro.engines.images.reach import as_environment, plain
from tests.engines.archives import entry
from tests.engines.small_registry import running
from tests.engines.taking_registry import TakingRegistry


class Place:
    """A registry at ``host`` that has ``base/small:v1``, a context and a cache."""

    def __init__(self, registry: TakingRegistry, host: str, folder: Path, context: Path) -> None:
        self.registry = registry
        self.host = host
        self.context = context
        self.context.mkdir(exist_ok=True)
        self.near = [host]  # what the platform lets it reach on this machine
        self._cache = folder / "cache"

    def build(
        self,
        dockerfile: str,
        *words: str,
        to: str = "me/made:v1",
        env: Mapping[str, str] | None = None,
        socket: str = "",
    ) -> tuple[int, str]:
        """The exit code, and what was said. ``socket`` is that of a daemon that builds."""
        text = dockerfile.replace("BASE", f"{self.host}/base/small:v1")
        (self.context / "Dockerfile").write_text(text)
        argv = [f"--context={self.context}", f"--insecure-registry={self.host}", *words]
        if to:
            argv.append(f"--destination={self.host}/{to}")
        out = io.StringIO()
        told = {**as_environment(plain(*self.near)), **(env or {})}
        code = run(argv, told, out, str(self._cache), socket)
        return code, out.getvalue()

    def config(self, repository: str = "me/made", tag: str = "v1") -> dict[str, object]:
        """The configuration of what was pushed."""
        manifest = json.loads(self.registry.manifest(repository, tag)[1])
        body: dict[str, object] = json.loads(self.registry.blobs[manifest["config"]["digest"]])
        return body

    def layers(self, repository: str = "me/made", tag: str = "v1") -> list[list[str]]:
        """The names in each layer of what was pushed."""
        manifest = json.loads(self.registry.manifest(repository, tag)[1])
        found = []
        for one in manifest["layers"]:
            body = io.BytesIO(self.registry.blobs[one["digest"]])
            with tarfile.open(fileobj=body) as tar:
                found.append(sorted(tar.getnames()))
        return found

    def contents(self, name: str, repository: str = "me/made", tag: str = "v1") -> bytes:
        """What is in a file of the highest layer of what was pushed."""
        manifest = json.loads(self.registry.manifest(repository, tag)[1])
        body = io.BytesIO(self.registry.blobs[manifest["layers"][-1]["digest"]])
        with tarfile.open(fileobj=body) as tar:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()


@contextmanager
def place(folder: Path, busybox: bytes = b"", context: Path | None = None) -> Iterator[Place]:
    registry = TakingRegistry()
    files = [
        entry("etc", "folder"),
        entry("etc/passwd", content=b"root:x:0:0::/root:/bin/sh\nbob:x:7:8::/:/bin/sh\n"),
        entry("bin", "folder"),
    ]
    if busybox:
        files.append(entry("bin/sh", content=busybox, mode=0o755))
    registry.image(
        "base/small",
        *(archive_of(files), archive_of([entry("more/file", content=b"more")])),
        tag="v1",
        Env=["A=1"],
        OnBuild=["ENV T=1"],
    )
    with running(registry) as host:
        yield Place(registry, host, folder, context or folder / "context")


def archive_of(files: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    from tests.engines.archives import archive

    return archive(*files)
