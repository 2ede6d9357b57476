"""Small files that must be whole, or not there, after a power loss."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Put a file with this line in place of ``path``. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w", encoding="ascii") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())  # else there may be an empty file in its place
    draft.rename(path)
