"""A network of its own for a plain user's run: pasta carries its traffic in user space."""

from __future__ import annotations

import os
import signal


class Pasta:
    """One pasta process, which attaches to the network of the sandbox's init.

    It goes to the background when the network is there: ``starter`` ends then.
    """

    def __init__(self, tool: str, init: int, folder: str) -> None:
        self._pid_file = f"{folder}/pasta.pid"
        self.starter = os.fork()
        if self.starter == 0:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                os.execve(tool, arguments(tool, init, self._pid_file), {})
            finally:
                os._exit(127)

    def ready(self) -> bool:
        """Call when ``starter`` ended: whether the network is there."""
        _, status = os.waitpid(self.starter, 0)
        return status == 0

    def end(self) -> None:
        """Make sure that it is gone. It also leaves by itself when the network does."""
        try:
            with open(self._pid_file, encoding="ascii") as file:
                os.kill(int(file.read()), signal.SIGKILL)
        except (OSError, ValueError):
            pass


def arguments(tool: str, init: int, pid_file: str) -> list[str]:
    """pasta's command line: outgoing traffic only, no port of the host is forwarded."""
    return [
        *(tool, "--config-net", "--quiet", "--pid", pid_file, "--no-map-gw"),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--userns", f"/proc/{init}/ns/user", "--netns", f"/proc/{init}/ns/net"),
    ]
