"""Debian's userland, made once: no registry of images can be reached from tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_CACHE = Path(__file__).parents[1] / ".cache" / "debian"
_RELEASE = "bookworm"


def root(packages: Sequence[str]) -> Path:
    """A tar of a small system that has ``packages``; skips the test where it cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap (apt: mmdebstrap)")
    _CACHE.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:16]
    made = _CACHE / f"{_RELEASE}-{name}.tar"
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not made.exists():
            part = made.with_suffix(".part.tar")
            words = [
                *("--mode=root", "--variant=essential", f"--include={','.join(packages)}"),
                "--aptopt=APT::Install-Recommends false",
                "--aptopt=Acquire::Check-Valid-Until false",  # a mirror may be behind
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
            ]
            subprocess.run(["mmdebstrap", *words, _RELEASE, part], check=True, capture_output=True)
            part.rename(made)
    return made
