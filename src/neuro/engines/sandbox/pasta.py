"""A network of its own for a plain user's run: pasta carries its traffic in user space."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.launch import Network
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.network import refuse


def forwarding(host_port: int) -> tuple[str, ...]:
    """Arguments: no port of a run is open to the machine (``connect`` reaches it otherwise).

    One port of the machine's may be open to the run.
    """
    return ("-t", "none", "-u", "none", "-T", str(host_port or "none"), "-U", "none")


class Pasta:
    """One pasta process, which attaches to the network of the sandbox's init.

    It writes its pid when the network is there, into a FIFO that we listen to. Then a process
    enters the network and refuses what runs may not reach, and ``on_ready`` is called once with
    whether all of it worked.
    """

    def __init__(
        self,
        loop: Loop,
        network: Network,
        init: int,
        folder: str,
        on_ready: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._network = network
        self._init = init
        self._on_ready: Callable[[bool], None] | None = on_ready
        path = f"{folder}/pasta"
        os.mkfifo(path, 0o600)
        self._word = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                kernel.die_with_parent()
                kernel.reset_signals()  # it refuses to start with SIGPIPE ignored
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                os.execve(network.tool, arguments(network, init, path), {})
            finally:
                os._exit(127)
        loop.watch(self._word, READ, lambda _: self._heard())
        loop.on_end(self.pid, lambda _: self._tell(worked=False))

    def _heard(self) -> None:
        if os.read(self._word, 64):
            self._loop.forget(self._word)
            pid = os.fork()
            if pid == 0:
                _refuse(self._network, self._init)
            self._loop.on_end(pid, lambda status: self._tell(worked=status == 0))

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


def _refuse(network: Network, init: int) -> None:
    """A process of its own: it enters the network, by way of its owner. Does not return."""
    code = 1
    try:
        kernel.die_with_parent()
        kernel.hide_memory()
        kernel.enter_namespaces(init, kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        refuse(network.refused, network.resolvers)
        code = 0
    finally:
        os._exit(code)


def arguments(network: Network, init: int, pid_file: str) -> list[str]:
    """pasta's command line."""
    return [
        *(network.tool, "--config-net", "--foreground", "--quiet", "--no-map-gw"),
        *("--pid", pid_file, *forwarding(network.host_port)),
        *("--userns", f"/proc/{init}/ns/user", "--netns", f"/proc/{init}/ns/net"),
    ]
