"""Programs that a project's owner may have and the platform has not: made once, kept in a cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from neuro.cli.project.answers import TEMPLATES

_REPOSITORY = TEMPLATES.parents[2]
_PACKAGES = ("cookiecutter==2.7.1", "flake8==7.3.0", "isort==6.1.0", "mypy==1.18.2")


def install() -> Path:
    """The ``bin`` folder of an environment with cookiecutter and the linters of setup.cfg."""
    folder = _cache() / f"templates-{sys.version_info.major}.{sys.version_info.minor}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp = folder / "complete"
    wanted = "\n".join((str(folder), *_PACKAGES))
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = ""
        with contextlib.suppress(OSError):
            found = stamp.read_text()
        if found != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _call(sys.executable, "-m", "venv", str(folder))
            _call(str(folder / "bin" / "pip"), "install", "--quiet", "--no-input", *_PACKAGES)
            stamp.write_text(wanted)
    return folder / "bin"


def _cache() -> Path:
    root = os.environ.get("NEURO_TEST_CACHE")
    return Path(root) if root else _REPOSITORY / ".cache" / "clients"


def _call(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
