"""A network of its own for a plain user's run: pasta carries its traffic in user space."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.launch import reset_signals
from neuro.engines.sandbox.loop import READ, Loop

# Ports of the host are for the host: jobs are reached by ``connect``.
FORWARD_NOTHING = ("-t", "none", "-u", "none", "-T", "none", "-U", "none")


class Pasta:
    """One pasta process, which attaches to the network of the sandbox's init.

    It writes its pid when the network is there, into a FIFO that we listen to: ``on_ready`` is
    called once with whether it worked.
    """

    def __init__(
        self, loop: Loop, tool: str, init: int, folder: str, on_ready: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._on_ready: Callable[[bool], None] | None = on_ready
        path = f"{folder}/pasta"
        os.mkfifo(path, 0o600)
        self._word = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                kernel.die_with_parent()
                reset_signals()  # it refuses to start with SIGPIPE ignored
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                os.execve(tool, arguments(tool, init, path), {})
            finally:
                os._exit(127)
        loop.watch(self._word, READ, lambda _: self._heard())
        loop.on_exit(self.pid, self._ended)

    def _heard(self) -> None:
        if os.read(self._word, 64):
            self._tell(worked=True)

    def _ended(self) -> None:
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self._tell(worked=False)

    def _tell(self, *, worked: bool) -> None:
        if self._on_ready is not None:
            self._loop.forget(self._word)
            os.close(self._word)
            action, self._on_ready = self._on_ready, None
            action(worked)

    def end(self) -> None:
        """Make sure that it is gone. It also leaves by itself when the network does."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass


def arguments(tool: str, init: int, pid_file: str) -> list[str]:
    """pasta's command line: outgoing traffic only."""
    return [
        *(tool, "--config-net", "--foreground", "--quiet", "--no-map-gw", "--pid", pid_file),
        *FORWARD_NOTHING,
        *("--userns", f"/proc/{init}/ns/user", "--netns", f"/proc/{init}/ns/net"),
    ]
