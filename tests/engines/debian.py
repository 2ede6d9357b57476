"""A small Debian with apt and pip, as an archive: made once, by mmdebstrap, for all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

PLACE = "NEURO_TESTS_DEBIAN"
_KEEP_LISTS = "--skip=cleanup/apt/lists"  # so that nothing need be fetched to find a package


@cache
def archive() -> Path:
    """Where it is; the test is skipped where it cannot be made."""
    place = os.environ.get(PLACE)
    if place:
        return Path(place)
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("a Debian is made by root, with mmdebstrap")
    folder = Path(tempfile.mkdtemp(prefix="neuro-debian-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    made = folder / "root.tar"
    packages = "--include=ca-certificates,python3-pip"
    command = ["mmdebstrap", "--quiet", "--variant=apt", packages, _KEEP_LISTS, "bookworm", made]
    subprocess.run(command, check=True)
    made.chmod(0o644)
    os.environ[PLACE] = str(made)
    return made


def unpack(folder: Path) -> None:
    """Make a layer of it, as it is on the disk of a server of this user."""
    owners = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    command = ["tar", "-x", owners, "--same-permissions", "--exclude=./dev/*", "-C", folder]
    subprocess.run([*command, "-f", archive()], check=True)
