"""Clients of registries from the package index, in an environment of their own: made once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

_REQUIREMENTS = ("oras==0.2.43", "python-dxf==12.1.1")


class CannotInstall(Exception):
    """The package index cannot be reached."""


def environment() -> Path:
    """The folder of the environment; it is made if it is not there yet. Raises CannotInstall."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-tests"
    cache.mkdir(parents=True, exist_ok=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / "-".join(["registry-clients", python, *_REQUIREMENTS]).replace("==", "-")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests run side by side.
        if not (folder / "complete").exists():
            _make(folder)
            (folder / "complete").touch()
    return folder


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "pip"), "install", "--quiet", "--no-input", *_REQUIREMENTS],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotInstall(f"{' '.join(command)}: {done.stderr}")
