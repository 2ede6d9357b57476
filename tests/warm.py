"""Servers that begin as forks of a process that has imported all they need.

That is most of a start, and a run of the tests starts hundreds. What a fork runs is the server's
own ``main``, with the environment and the folder of whoever starts it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["neuro.server.__main__", "tests.offline"])


class Fork:
    """A server that was begun so, as ``subprocess.Popen`` would show it."""

    def __init__(self, arguments: list[str], ready: Connection, log: Path) -> None:
        """``arguments`` are the server's own; a file that runs it may stand before them.

        ``ready`` is given as ``--ready-fd``; what the server says is added to ``log``.
        """
        self._process = _CONTEXT.Process(
            target=_serve, args=(arguments, ready, log, {**os.environ}, os.getcwd()), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("neuro.server", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _serve(
    arguments: list[str], ready: Connection, log: Path, environment: dict[str, str], folder: str
) -> None:
    from neuro.server.__main__ import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, flags, numbers in (
        (os.devnull, os.O_RDONLY, (0,)),
        (log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, (1, 2)),
    ):
        fd = os.open(path, flags, 0o666)
        for number in numbers:
            os.dup2(fd, number)
        os.close(fd)
    arguments += ["--ready-fd", str(os.dup(ready.fileno()))]
    ready.close()
    try:
        if arguments[0] == "run":
            sys.argv = ["neuro.server", *arguments]
            sys.exit(main())
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
