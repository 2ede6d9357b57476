"""The key that signs this installation's tokens: a file that only the server's user can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def load_or_create_key(path: Path) -> bytes:
    """Read the signing key, or make it on the first start.

    Raises PermissionError where others may read the file, saying what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise PermissionError(
                f"Others can read the signing key {path}: run `chmod 600 {path}`. If others may"
                " have copied it, delete it; then everybody has to log in again."
            ) from None
        return path.read_bytes()
    with os.fdopen(file, "wb") as stream:
        key = secrets.token_bytes(KEY_BYTES)
        stream.write(key)
        stream.flush()
        os.fsync(stream.fileno())
    return key
