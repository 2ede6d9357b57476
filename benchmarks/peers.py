"""The original's own command line, to measure beside ours against the same server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.clients.environments import install
from tests.server_process import ServerProcess

VERSION = "22.7.1"


@contextlib.contextmanager
def reference_client(running: ServerProcess) -> Iterator[Callable[..., None]]:
    """A function that runs one ``neuro`` command of the original, logged in to this server."""
    command = [str(install(VERSION) / "bin" / "neuro"), "--skip-stats",
               "--disable-pypi-version-check"]  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home}

        def run(*words: str) -> None:
            subprocess.run([*command, *words], env=env, stdout=subprocess.DEVNULL, check=True)

        run("config", "login-with-token", running.token, running.url)
        yield run


@contextlib.contextmanager
def reference_flow(running: ServerProcess) -> Iterator[Callable[..., None]]:
    """A function that runs one ``neuro-flow`` command of the original in the folder ``cwd``."""
    commands = install(VERSION) / "bin"
    with tempfile.TemporaryDirectory() as home:
        # It calls `neuro`, which must be the one beside it.
        env = {**os.environ, "HOME": home, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
        login = [str(commands / "neuro"), "--skip-stats", "--disable-pypi-version-check", "config",
                 "login-with-token", running.token, running.url]  # fmt: skip
        subprocess.run(login, env=env, stdout=subprocess.DEVNULL, check=True)

        def run(*words: str, cwd: Path) -> None:
            command = [str(commands / "neuro-flow"), *words]
            subprocess.run(command, env=env, cwd=cwd, stdout=subprocess.DEVNULL, check=True)

        yield run
