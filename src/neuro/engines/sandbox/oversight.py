"""Limits of a run that no control group holds: memory where there is none, and private files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from neuro.engines.sandbox import watching
from neuro.engines.sandbox.disk import (
    NOTHING,
    DiskWatch,
    FirstCount,
    Use,
    entries_for,
    size_in_words,
)
from neuro.engines.sandbox.launch import Plan, Request
from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.watching import Watch


class Oversight:
    """Looks at what a run takes, and kills one that takes too much.

    ``memory_exceeded`` and ``disk_excess`` (a sentence) say afterwards what it was.
    """

    def __init__(self, loop: Loop, kill: Callable[[], None]) -> None:
        self._loop = loop
        self._kill = kill
        self._watches: list[Watch | DiskWatch | FirstCount] = []
        self._cached = NOTHING
        self.memory_exceeded = False
        self.disk_excess: str | None = None

    def prepare(self, request: Request, then: Callable[[], None]) -> None:
        """Call ``then`` once it is known what is there that does not count: at once, or later.

        Until then the run's command must not begin, or what it adds would pass for that.
        """

        def counted(use: Use) -> None:
            self._cached = use
            then()

        if request.disk and request.cache:
            self._watches.append(FirstCount(self._loop, request.cache, counted))
        else:
            then()

    def begin(self, plan: Plan, request: Request, init: int, layers: str) -> None:
        """Look at all that no group holds for the run whose first process is ``init``."""
        if plan.groups.version == 0:
            self._watch_memory(init, request.memory)
        if request.disk:
            self.watch_disk(layers, init, request.disk)
            if request.cache:
                self._watch_cache(request.cache, request.disk)

    def _watch_memory(self, init: int, limit: int) -> None:
        """Keep the processes of ``init`` below ``limit`` bytes, and on the cores it has now."""
        cores = os.sched_getaffinity(init)
        self._watches.append(
            Watch(self._loop, init, cores=cores, memory=limit, on_excess=self._memory_exceeded)
        )

    def watch_disk(self, layers: str, init: int, limit: int) -> None:
        """Keep the private files in ``layers`` below ``limit`` bytes."""
        self._watches.append(
            DiskWatch(
                self._loop,
                layers,
                limit=limit,
                inodes=entries_for(limit),
                on_excess=self._disk_exceeded,
                processes=partial(watching.processes, init),
            )
        )

    def _watch_cache(self, folder: str, limit: int) -> None:
        """Keep what a build adds to its cache below ``limit`` bytes."""
        self._watches.append(
            DiskWatch(
                self._loop,
                folder,
                limit=limit,
                inodes=entries_for(limit),
                on_excess=lambda _: self._disk_exceeded(
                    "what the build added to its cache is more than the"
                    f" {size_in_words(limit)} that the job may use: choose a preset with more disk"
                ),
                there=self._cached,
            )
        )

    def end(self) -> None:
        """Look no more."""
        for watch in self._watches:
            watch.end()

    def _memory_exceeded(self) -> None:
        self.memory_exceeded = True
        self._kill()

    def _disk_exceeded(self, sentence: str) -> None:
        self.disk_excess = sentence
        self._kill()
