"""Small files that must be whole, or not there, after a power loss."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Put a file with this line, for its owner alone, in place of ``path``. Raises OSError."""
    # Made anew, never through a link that somebody else may have put there.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("x", encoding="ascii") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())  # else there may be an empty file in its place
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
