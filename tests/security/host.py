"""The host as an attacker would like to see it: a canary, volumes, and whether anything changed."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from neuro.engines.base import Volume
from neuro.engines.sandbox import identities
from tests.engines.harness import mounted

SECRET = "canary-that-no-job-was-given"
_numbers = itertools.count()
# Where attackers would make something, and what: others work on this machine meanwhile.
_PLACES = ("/", "/etc", "/usr", "/usr/bin", "/usr/local/bin", "/opt", "/home", "/root", "/var")
_ATTACKERS = re.compile(
    r"(made|written|neuro-attack).*|[a-cerstu-z]|file|flip|in|deep|secret|folder|oldroot|newroot"
    r"|shown|base|stage"
)


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
        for place in _PLACES:
            names = os.listdir(place) if os.access(place, os.R_OK) else []
            found[place] = sorted(name for name in names if _ATTACKERS.fullmatch(name))
        found[str(self.place)] = sorted(set(os.listdir(self.place)) - {"engine", "storage"})
        return found

    def check(self) -> None:
        """Raise AssertionError where something changed."""
        now = self.state()
        changed = {
            path: (self._before.get(path), now.get(path))
            for path in self._before.keys() | now.keys()
            if self._before.get(path) != now.get(path)
        }
        assert not changed, changed

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


def mount(source: Path, target: str, *, read_only: bool = False) -> Volume:
    return mounted(source=str(source), target=target, read_only=read_only)
