"""Where a build's steps are begun: a process beside the builder, which does nothing else."""

from __future__ import annotations

import os
import signal
import socket
import threading

from neuro.engines.sandbox.interpreter import PACKAGE_ROOT, python

# As in ``step_server``, which is not for us to import.
_CHANNEL = 0
_START = "import sys; sys.path.insert(0, {root!r}); from neuro.builder.step_server import main"


class Starter:
    """Has steps begun by a process (``step_server``) that it starts when one is expected.

    That is a new program, with an empty environment: nothing of what the builder knows is in it, or
    in what it forks. May be used in several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._pid = 0

    def expect(self) -> None:
        """Let the process be made, which takes a while, if it is not there. Raises OSError."""
        self._connected()

    def begin(self, order: int, report: int, lifeline: int, out: int, errors: int) -> None:
        """Have a step begun with these descriptors, see ``stepper.main``. Raises OSError.

        They are the caller's to close afterwards.
        """
        channel = self._connected()
        socket.send_fds(channel, [b"."], [order, report, lifeline, out, errors])

    def close(self) -> None:
        """End the process. The steps that it began do not end with it."""
        with self._lock:
            if self._channel is None:
                return
            self._channel.close()
            self._channel = None
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _connected(self) -> socket.socket:
        with self._lock:
            if self._channel is None:
                self._channel = self._start()
            return self._channel

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                code = f"{_START.format(root=PACKAGE_ROOT)}; main()"
                argv = [*python(), "-c", code]
                # Its errors go where ours go; the steps have streams of their own.
                streams = [
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHANNEL),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ]
                self._pid = os.posix_spawn(argv[0], argv, {}, file_actions=streams)
        except BaseException:
            ours.close()
            raise
        return ours
