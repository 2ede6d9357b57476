"""What evaluation needs from outside: who asks and from where, and what functions may do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from neuro.domain.jobs import Job
    from neuro.flow.evaluate.contexts import VolumeRecord


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a command was called: the facts that files cannot hold."""

    user: str
    """The platform's name of who asks; empty where nobody is logged in."""
    cwd: Path
    """The `git` context tells of the repository around this folder."""
    cache_dir: Path
    """Actions from repositories are kept below."""


class LiveEffects(Protocol):
    """What `upload()` and `inspect_job()` call; a dry run gives one that only tells."""

    def upload(self, volume: VolumeRecord) -> None:
        """Bring a volume's local folder to the storage."""
        ...

    def inspect_job(self, tags: tuple[str, ...]) -> Job | None:
        """Find the newest active job that has all the tags."""
        ...
