"""Commands of the published clients as forks of a process that has imported all they need.

That is most of a command: a second of a processor, and the tests run hundreds. What a fork runs
is the console script as pip has written it; ``warm_process`` says what is a new process' about it.
Commands that get signals, or that are on a terminal, are whole processes: see ``started`` and
``terminal`` of the clients.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
# What each command of theirs imports when it runs, and what of it some do.
_PLUGINS = ("neuro_cli.plugin", "neuro_extras", "neuro_flow.plugin")
_COMMANDS = ("ael", "config", "formatters.jobs", "image", "job", "secrets", "share", "storage")
MODULES = {
    "neuro": ("neuro_cli.main", *(f"neuro_cli.{name}" for name in _COMMANDS), *_PLUGINS),
    "neuro-flow": ("neuro_flow.cli", *_PLUGINS),
}


class Warm:
    """A program that is imported; it ends with this process, however that ends."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        python: Path,
        variables: Mapping[str, str],
        modules: Sequence[str] = (),
    ) -> None:
        """``variables`` are those which its commands share; ``modules`` are imported besides.

        ``folder`` is a place for a socket. Raises RuntimeError with what the program said.
        """
        self._program = program
        self._socket = folder / "socket"
        read, self._lifeline = os.pipe()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(str(self._socket))
                listener.listen()
                fds = (listener.fileno(), read)
                self._process = subprocess.Popen(
                    [python, _HERE / "warm_process.py", folder, *map(str, fds), program, *modules],
                    env=variables,
                    pass_fds=fds,
                    # Of the same kinds as a command has: its streams are those of this process.
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )  # fmt: skip
        finally:
            os.close(read)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{program} cannot be imported:\n{self.close()}")

    def command(self, *arguments: str) -> list[str]:
        """A command line that is the program's with these arguments."""
        # The interpreter of the tests: it only brings the command to the other one.
        relay = [sys.executable, "-I", "-S", str(_HERE / "relay.py")]
        return [*relay, str(self._socket), str(self._program), *arguments]

    def close(self) -> str:
        """End it and its commands; what it said that no command did."""
        os.close(self._lifeline)
        # Those that keep its commands have the pipe open until these have ended.
        return self._process.communicate()[1].decode()


class Programs:
    """The console scripts of an environment; each is imported when a command of it comes."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.environment = environment
        self._folder = folder
        self._warm: dict[str, Warm] = {}

    def whole(self, program: str, *arguments: str) -> list[str]:
        """The command line of a process that begins from nothing."""
        return [str(self.environment / "bin" / program), *arguments]

    def warm(self, program: str, *arguments: str) -> list[str]:
        """The command line of the same on a warm process."""
        if program not in self._warm:
            folder = self._folder / program
            folder.mkdir()
            self._warm[program] = Warm(
                self.environment / "bin" / program,
                folder,
                python=self.environment / "bin" / "python",
                variables=surroundings(),
                modules=MODULES[program],
            )
        return self._warm[program].command(*arguments)

    def close(self) -> None:
        """End what was imported."""
        for warm in self._warm.values():
            warm.close()


def surroundings() -> dict[str, str]:
    """The variables of the machine that clients see."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {"LANG": "C.UTF-8", **kept}
