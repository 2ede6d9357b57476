"""Other registries to measure beside ours on the same disk: Debian's, and the newest one."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE, VERSION = "github.com/distribution/distribution/v3/cmd/registry", "v3.0.0"
_CONFIGURATION = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}, maxthreads: 100}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class Peer:
    """A registry's name, its version, and its program."""

    name: str
    program: Path


def peers() -> list[Peer]:
    """Those that can be had here; the newest is built once, which takes Go."""
    found = []
    if (debian := shutil.which("docker-registry")) is not None:
        found.append(Peer("Debian's docker-registry", Path(debian)))
    if (newest := _newest()) is not None:
        found.append(Peer("distribution 3.0.0", newest))
    return found


@contextlib.contextmanager
def serving(peer: Peer) -> Iterator[tuple[str, int]]:
    """The address of a fresh one, and its process."""
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        configuration = Path(folder, "config.yml")
        configuration.write_text(_CONFIGURATION.format(folder=f"{folder}/data", port=port))
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(
            [peer.program, "serve", configuration],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            else:
                raise RuntimeError(f"{peer.name} has ended with {process.returncode} at its start")
            yield f"127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait()


def _newest() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-tests"
    built = cache / f"distribution-{VERSION}"
    if built.exists():
        return built
    if shutil.which("go") is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for command in (
            ["go", "mod", "init", "build"],
            ["go", "get", "-tool", f"{MODULE}@{VERSION}"],
            ["go", "build", "-trimpath", "-o", "program", MODULE],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        Path(folder, "program").rename(built)
    return built
