"""The host as an attacker would like to see it: a canary, volumes, and whether anything changed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from neuro.engines.base import Mount
from neuro.engines.sandbox import identities

SECRET = "canary-that-no-job-was-given"
_numbers = itertools.count()


class Host:
    """``place`` is a folder of the host with all of it; ``canary`` is what attackers look for."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.canary = place / "canary"
        self.canary.mkdir()
        (self.canary / "secret").write_text(SECRET)
        (self.canary / "folder").mkdir()
        # Whoever gets here as any user of the machine can read and write.
        for path in (self.canary, self.canary / "folder"):
            path.chmod(0o777)
        (self.canary / "secret").chmod(0o666)
        self._before = self.state()

    def volume(self, name: str | None = None) -> Path:
        """A new folder of the storage."""
        path = self.place / "storage" / (name or f"volume-{next(_numbers)}")
        path.mkdir(parents=True)
        own(path)
        return path

    def state(self) -> dict[str, object]:
        """All that no job may change."""
        found: dict[str, object] = {}
        for folder, folders, files in os.walk(self.canary):
            for name in (*folders, *files):
                path = Path(folder) / name
                info = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (info.st_mode, info.st_uid, info.st_mtime_ns, content)
        for place in ("/", "/etc", "/usr", "/usr/local/bin", "/home", "/var", str(self.place)):
            found[place] = sorted(os.listdir(place)) if os.path.isdir(place) else None
        return found

    def check(self) -> None:
        """Raise AssertionError where something changed."""
        self._before[str(self.place)] = now = sorted(os.listdir(self.place))
        assert set(now) <= {"canary", "engine", "storage"}, now
        assert self.state() == self._before

    def check_output(self, output: bytes, what: object = "") -> None:
        assert SECRET.encode() not in output, what


def own(path: Path) -> None:
    """Let a file or folder, or a link itself, belong to whom the storage belongs to."""
    if os.geteuid() == 0:
        os.chown(path, identities.STORAGE, identities.STORAGE, follow_symlinks=False)


def link(path: Path, target: str) -> None:
    """A link as a job would leave it."""
    path.symlink_to(target)
    own(path)


def mount(source: Path, target: str, *, read_only: bool = False) -> Mount:
    return Mount(source=str(source), target=target, read_only=read_only)
