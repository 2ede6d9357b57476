"""The processes of a run that its keeper must know: the first one, and its command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from neuro.engines.docker.groups import group_of
from neuro.engines.sandbox.loop import READ, Loop


class Processes:
    """Held by descriptors, so no other process is ever meant.

    ``first`` is the number of the first process, ``is_gone`` whether it is over, and with it every
    process of the run. ``status`` is the command's wait status, once it is known; ``killed`` is
    whether we ended it. ``peak_memory`` and ``out_of_memory`` are what its control group said last.
    """

    def __init__(self, loop: Loop, first: int, on_gone: Callable[[], None]) -> None:
        """Raises OSError."""
        self.first = first
        self.is_gone = False
        self.status: int | None = None
        self.killed = False
        self.peak_memory: int | None = None
        self.out_of_memory = False
        self._loop = loop
        self._on_gone = on_gone
        self._group = group_of(first)
        self._handle = os.pidfd_open(first)
        self._command: int | None = None
        loop.watch(self._handle, READ, self._gone)

    def begin(self, command: int) -> None:
        """The command is this process."""
        with contextlib.suppress(ProcessLookupError):  # it is over already, as is told by itself
            self._command = os.pidfd_open(command)

    def end(self, status: int) -> None:
        """The command has ended; the first process waits, so the group is still there."""
        self.status = status
        self._measure()

    def terminate(self) -> None:
        """SIGTERM to the command."""
        if self._command is not None:
            _signal(self._command, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to every process of the run, by way of its first one."""
        if not self.is_gone:
            self.killed = self.status is None
            self._measure()
            _signal(self._handle, signal.SIGKILL)

    def _measure(self) -> None:
        with contextlib.suppress(OSError):
            self.out_of_memory = self._group.out_of_memory()
            self.peak_memory = self._group.peak_memory()

    def _gone(self, _: int) -> None:
        self._loop.forget(self._handle)
        if self.status is None:
            self._measure()  # as far as the daemon has left the group
        self.is_gone = True
        self._on_gone()


def _signal(handle: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it has just ended
        signal.pidfd_send_signal(handle, number)
