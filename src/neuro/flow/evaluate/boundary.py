"""The workspace is the boundary of its flow files: what they name is inside of it.

A flow file may be a stranger's, and what it names is read, shown and sent. Only ``local:`` of
volumes may be anywhere: it is the person's own choice, made for the purpose.
"""

from __future__ import annotations

import os
from pathlib import Path

OUTSIDE = "'{}' leads out of the workspace: only files in it are hashed"


def leads_out(path: str) -> bool:
    """Whether a path, or a pattern, of a flow file leads out of the workspace by what it says."""
    return Path(path).is_absolute() or Path(os.path.normpath(path)).parts[:1] == (os.pardir,)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file that is there is in a folder, wherever links lead."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # A circle of links.
        return False
