"""Debian's userland, made once: no registry of images can be reached from tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PLACE = "NEURO_TESTS_DEBIAN"  # names the archive to processes of other users
_CACHE = Path(__file__).parents[1] / ".cache" / "debian"
_RELEASE = "bookworm"
_OPTIONS = (
    "--mode=root",
    "--variant=apt",
    "--include=ca-certificates,python3-pip,python3-venv",
    "--skip=cleanup/apt/lists",  # so that nothing need be fetched to find a package
    "--aptopt=APT::Install-Recommends false",
    "--aptopt=Acquire::Check-Valid-Until false",  # a mirror may be behind
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)


def archive() -> Path:
    """A tar of a small system with apt, Python and pip; skips the test where none can be made."""
    if PLACE in os.environ:
        return Path(os.environ[PLACE])
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap (apt: mmdebstrap)")
    _CACHE.mkdir(parents=True, exist_ok=True)
    made = _CACHE / f"{_RELEASE}.tar"
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not made.exists():
            part = made.with_suffix(".part.tar")
            command = ["mmdebstrap", *_OPTIONS, _RELEASE, part]
            subprocess.run(command, check=True, capture_output=True)
            part.rename(made)
    return made


def unpack(folder: Path) -> None:
    """Make a layer of it, as it is on the disk of a server of this user."""
    owners = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    command = ["tar", "-x", owners, "--same-permissions", "--exclude=./dev/*", "-C", folder]
    subprocess.run([*command, "-f", archive()], check=True)
