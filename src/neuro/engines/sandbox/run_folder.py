"""The folder of a run, as its supervisor has it: open, so that nobody can put another in its place.

Once a run's end is told, its job may be removed and another begin under its name.
"""

from __future__ import annotations

import os
from typing import Any

from neuro.engines.sandbox import launch, layout
from neuro.engines.sandbox.ending import ExitRecord


class RunFolder:
    """The folder at ``path``, and the run's private layers in it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def layers(self) -> str:
        """The folder of the private layers."""
        return f"/proc/self/fd/{self._place}/layers"

    @property
    def is_there(self) -> bool:
        """Whether nobody has deleted it."""
        return os.fstat(self._place).st_nlink > 0

    def clear(self, plan: launch.Plan) -> None:
        """Delete the private files. What cannot go is left to the next server's start."""
        try:
            launch.clear_work(self.layers, 2 * (1 + len(plan.userland.overlays)))
            layout.remove_tree(self.layers)
        except OSError:
            pass

    def add_state(self, record: dict[str, Any]) -> None:
        """Write what is needed to clean up after the run if nobody can. Raises OSError."""
        layout.add_state(f"{self._path}/{layout.STATE}", record)

    def write_exit(self, record: ExitRecord) -> None:
        """Put the run's end on record. Raises OSError, FileNotFoundError where it was deleted."""
        layout.write_exit(f"/proc/self/fd/{self._place}", record)

    def close(self) -> None:
        os.close(self._place)
