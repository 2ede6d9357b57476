"""What a keeper has done in threads, because it blocks: questions to the daemon."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from neuro.engines.sandbox.loop import READ, Loop

T = TypeVar("T")


class Errands:
    """Threads that tell the loop of a keeper what came of their work."""

    def __init__(self, loop: Loop) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._told: deque[Callable[[], None]] = deque()
        loop.watch(self._reader, READ, self._ready)

    def run(self, work: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Do ``work`` in a thread; the loop calls ``then`` with what it returned or raised."""

        def body() -> None:
            result: T | Exception
            try:
                result = work()
            except Exception as error:
                result = error
            self.tell(lambda: then(result))

        threading.Thread(target=body, daemon=True).start()

    def tell(self, action: Callable[[], None]) -> None:
        """Have the loop call ``action``; from any thread."""
        self._told.append(action)
        os.write(self._writer, b"\0")

    def _ready(self, _: int) -> None:
        os.read(self._reader, 4096)
        while self._told:
            self._told.popleft()()
