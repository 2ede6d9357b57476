"""Facts about a bake that its files do not say."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuro.domain.bakes import GitInfo

if TYPE_CHECKING:
    from pathlib import Path

# The bake's id where there is none yet.
NO_BAKE = "bake-00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Facts:
    """The circumstances of a bake.

    ``hashes`` holds what ``hash_files`` gave, by a digest of its arguments; while ``collecting``,
    at submission, files are read and the hashes noted there, later they are looked up only.
    While ``checking``, nothing is given: no parameters and no commit, and no file is hashed.
    """

    bake_id: str
    batch: str
    workspace: Path
    user: str
    git: GitInfo | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    collecting: bool = False
    checking: bool = False


def collect_git(folder: Path) -> GitInfo | None:
    """Ask for the commit that a folder is at; None where there is no repository, or no git."""
    commit = _git(folder, "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    if commit is None:
        return None
    sha, _, branch = commit.partition("\n")
    tags = _git(folder, "tag", "--points-at", "HEAD") or ""
    return GitInfo(sha=sha, branch=branch, tags=tags.split("\n"))


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
