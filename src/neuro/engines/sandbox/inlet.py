"""Where input goes into a job that is sent some: a pipe to its standard input."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from neuro.engines.sandbox.client import Feed
from neuro.engines.sandbox.loop import WRITE, Loop


class Inlet(Protocol):
    """The way into a job: a pipe, or the keyboard of its terminal."""

    @property
    def taken(self) -> int:
        """How many bytes the job's input has taken in all."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it will never take more."""
        ...

    def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The input ends here; of a terminal, its end-of-file character is typed."""
        ...


class PipeInlet:
    """``inner`` is the job's end; ``pause`` is told whether the job is behind with reading.

    ``on_change`` is called when the job has taken more, or will take nothing more.
    """

    def __init__(
        self, loop: Loop, pause: Callable[[bool], None], on_change: Callable[[], None]
    ) -> None:
        self.inner, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._loop = loop
        self._pause = pause
        self._on_change = on_change
        self._open = True
        self._feed = Feed(self._fd, self._blocked, self._changed)
        self._watch(0)

    @property
    def taken(self) -> int:
        return self._feed.taken

    @property
    def closed(self) -> bool:
        return not self._open

    def write(self, data: bytes) -> None:
        if self._open:
            self._feed.write(data)

    def end(self) -> None:
        if self._open:
            self._feed.end(self._finish)

    def _watch(self, events: int) -> None:
        # That nobody reads a pipe any more is told without being asked for.
        if self._open:
            self._loop.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & ~WRITE:
            self._feed.abandon()
        else:
            self._feed.resume()

    def _blocked(self, blocked: bool) -> None:
        self._watch(WRITE if blocked else 0)
        self._pause(blocked)

    def _changed(self) -> None:
        if self._feed.closed:
            self._close()
        self._on_change()

    def _finish(self) -> None:
        self._close()
        self._on_change()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._loop.forget(self._fd)
            os.close(self._fd)
