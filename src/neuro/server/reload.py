"""SIGHUP: the server reads ``server.toml`` again.

It begins again within its process, as by a stop and a start: jobs go on, clients come back by
themselves. A file with a mistake changes nothing. ``run/reload.json`` tells who asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import structlog

from neuro.domain.errors import PlatformError
from neuro.server.settings import Settings, load_settings

log = structlog.get_logger("neuro.server")


def digest_of(data_dir: Path) -> str:
    """What tells whether ``server.toml`` was changed; that of nothing where there is none."""
    try:
        content = (data_dir / "server.toml").read_bytes()
    except OSError:
        content = b""
    return hashlib.sha256(content).hexdigest()


def _take_all(settings: Settings) -> None:
    pass


class Reload:
    """What signals asked for: to begin again, or to end."""

    def __init__(self, data_dir: Path, stop: asyncio.Event) -> None:
        """``stop`` ends the server that runs."""
        self.is_due = False
        # Raises PlatformError for settings that the server that runs could not begin again with.
        self.check: Callable[[Settings], None] = _take_all
        self._is_ending = False
        self._data_dir = data_dir.expanduser().resolve()
        self._stop = stop

    def ask(self) -> None:
        """Read the file, and begin again with it if it is good."""
        if self._is_ending:
            return
        try:
            self.check(load_settings(self._data_dir / "server.toml"))
        except (PlatformError, OSError) as error:
            log.error("server.toml is not applied", error=str(error))
            self._answer(str(error))
            return
        except Exception as error:  # Whoever asked waits for an answer.
            log.error("server.toml is not applied", exc_info=error)
            what = f"{type(error).__name__}: {error}"
            self._answer(f"The server could not read server.toml ({what}); its log says more")
            return
        self._answer(None)
        self.is_due = True
        self._stop.set()

    def end(self) -> None:
        """Let the server end; this wins over a reload."""
        self._is_ending = True
        self.is_due = False
        self._stop.set()

    def done(self) -> None:
        """The server begins again."""
        self.is_due = False
        if not self._is_ending:
            self._stop.clear()

    def _answer(self, error: str | None) -> None:
        path = self._data_dir / "run" / "reload.json"
        draft = path.with_name("reload.json.new")
        try:
            draft.write_text(json.dumps({"error": error}))
            draft.rename(path)
        except OSError as problem:
            log.warning("nobody can be told of the reload", error=str(problem))
