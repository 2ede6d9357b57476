"""What of this machine a job sees.

The job's root is a private folder on disk. The machine's own userland appears in it as overlays
(readable below, private and writable above), never its home folders, ``/var``, ``/srv``, ``/mnt``,
sockets or environment. The Python environment that the server runs in is there at its own path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Userland:
    """What jobs see of the machine.

    ``overlays`` are folders with a private layer above, ``between`` maps some of them to layers of
    ours in the middle, ``read_only`` are folders bound as they are, ``covered`` folders that show
    empty. ``template`` is what lies below every job's root: empty folders for all that is mounted,
    and symbolic links. Our layers and the template are named as below the engine's land folder.

    ``mapped`` is whether the machine's files belong to user 0 of the run, by way of ``bases``: the
    folders that hold all ``overlays``. Else they belong to nobody, as in a plain user's sandbox.
    ``writable`` is whether the private layers can be written to.
    """

    overlays: tuple[str, ...]
    bases: tuple[str, ...]
    between: dict[str, tuple[str, ...]]
    read_only: tuple[str, ...]
    covered: tuple[str, ...]
    template: str
    path: str
    mapped: bool = False
    writable: bool = True

    def lower(self, path: str) -> str:
        """Where the folder of the machine at ``path`` is, seen from the stage of a run."""
        if not self.mapped:
            return f"base/{self.overlays.index(path)}"
        base = max((one for one in self.bases if is_below(path, [one.rstrip("/")])), key=len)
        rest = path if base == "/" else path[len(base) :]
        return f"base/{self.bases.index(base)}{rest}"


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path is one of the folders, or in one."""
    return any(path == folder or path.startswith(folder + "/") for folder in folders)
