"""Where things are on this machine: the client's folder, the local server's data."""

from __future__ import annotations

import os
from pathlib import Path


def config_dir(text: str) -> Path:
    """The folder of the client's configuration, from the option or its default."""
    return Path(text).expanduser()


def default_data_dir() -> Path:
    """The local server's data folder: ``NEURO_DATA_DIR``, else the XDG data folder's."""
    if given := os.environ.get("NEURO_DATA_DIR"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME")
    folder = Path(base) if base and base.startswith("/") else Path.home() / ".local" / "share"
    return folder / "neuro"


def log_file(data_dir: Path) -> Path:
    return data_dir / "logs" / "server.log"


def server_file(data_dir: Path) -> Path:
    """What a running server says of itself: pid, url, started_at."""
    return data_dir / "run" / "server.json"


def owner_file(data_dir: Path) -> Path:
    """The machine's owner's token; only they can read it."""
    return data_dir / "run" / "owner.json"


def lock_file(data_dir: Path) -> Path:
    """Held by the server as long as it lives."""
    return data_dir / "run" / "lock"
