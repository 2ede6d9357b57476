"""What goes on behind a server that is up: emptying the trash, deleting groups that stayed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable

from neuro.engines.sandbox import cgroups, leftovers
from neuro.engines.sandbox.removal import Stopped

_PATIENCE = 2.0  # seconds of one try for all groups together
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 600.0  # seconds between tries

log = logging.getLogger("neuro.engine")


class Tidying:
    """One thread at a time removes what nobody needs. It tries again where something stays."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._groups: list[cgroups.Group] = []
        self._due = asyncio.Event()
        self._ending = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, groups: Iterable[cgroups.Group] = ()) -> None:
        """Empty the trash, and delete ``groups``, soon."""
        self._groups += groups
        self._due.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tidying")

    async def close(self) -> None:
        """Stop within moments; what is left is the next server's."""
        self._ending.set()
        self._due.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause: float | None = None
        while not self._ending.is_set():
            try:
                async with asyncio.timeout(pause):
                    await self._due.wait()
                pause = None
            except TimeoutError:
                pass
            self._due.clear()
            groups, self._groups = self._groups, []
            left, is_clean = await asyncio.to_thread(self._tidy, groups)
            self._groups += left
            if is_clean and not left:
                pause = None
            else:
                pause = _FIRST_PAUSE if pause is None else min(pause * 2, _LONGEST_PAUSE)

    def _tidy(self, groups: list[cgroups.Group]) -> tuple[list[cgroups.Group], bool]:
        try:
            left = cgroups.clear(groups, _PATIENCE) if not self._ending.is_set() else groups
            return left, leftovers.empty_trash(self._folder, self._ending.is_set) == 0
        except Stopped:
            return groups, False
        except Exception:
            log.exception("what jobs left behind cannot be removed")
            return groups, False
