"""Imports what a program of Python needs, and is then that program, as a fork, when it is asked.

Arguments: an empty folder, the descriptors of a socket that listens and of a pipe, the program's
file, and modules that it needs besides. Runs in a published client's environment: Python alone.

A fork has what a whole process would have: the arguments, variables, folder, mask and descriptors
of who asks, and nothing of those that came before it, since the process that forks only imports.
Whoever asks keeps the connection, and its end ends the fork. The pipe's end ends all.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from types import CodeType, ModuleType
from typing import Any

# What an interpreter and its libraries read, and os.environ does not see.
_UNSEEN = ("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON", "TZ")
# More than any command with its variables.
_LARGEST = 1 << 18


class Watched(type(os.environ)):  # type: ignore[misc]
    """``os.environ`` that notes which variables are read."""

    read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)

    def __iter__(self) -> Any:
        raise RuntimeError("an import reads all variables: what it makes of them is not known")


class Request:
    """What a command is given."""

    def __init__(self, message: bytes, descriptors: list[int]) -> None:
        umask, self.folder, count, *rest = message.split(b"\0")
        self.umask = int(umask, 8)
        self.arguments = [os.fsdecode(word) for word in rest[: int(count)]]
        self.variables = dict(pair.split(b"=", 1) for pair in rest[int(count) :])
        self.descriptors = descriptors


class Imported:
    """A program that is imported, and what of this process went into it."""

    def __init__(self, program: str, modules: Sequence[str], folder: str) -> None:
        self._program = program
        self._home, self._here = f"{folder}/home", f"{folder}/here"
        os.mkdir(self._here)
        os.chdir(self._here)
        os.environ["HOME"] = self._home
        # As for a program that is started by its name; it was the folder of this file.
        sys.path[0] = program.rpartition("/")[0]
        plain, os.environ.__class__ = os.environ.__class__, Watched
        self._code: CodeType = compile(Path(program).read_bytes(), program, "exec")
        # Under any name but __main__, a console script imports, and does nothing else.
        exec(self._code, {"__name__": "imported", "__file__": program})
        for name in modules:
            importlib.import_module(name)
        os.environ.__class__ = plain
        self._variables = dict(os.environb)
        self._places = [*_remembered(self._home), *_remembered(self._here)]

    def would_differ(self, variables: dict[bytes, bytes]) -> list[str]:
        """Which of a command's variables would have changed what was imported."""
        names = {os.fsdecode(name) for name in {*variables, *self._variables}}
        decisive = Watched.read | {name for name in names if name.startswith(_UNSEEN)}
        return [
            name
            for name in sorted(decisive - {"HOME"})
            if variables.get(os.fsencode(name)) != self._variables.get(os.fsencode(name))
        ]

    def become(self, request: Request) -> CodeType:
        """Make this process what a new one would be before the first line of its program."""
        for number, fd in enumerate(request.descriptors):
            os.dup2(fd, number)
            os.close(fd)
        os.umask(request.umask)
        os.chdir(request.folder)
        os.environb.clear()
        os.environb.update(request.variables)
        now = {self._home: os.environ["HOME"], self._here: os.getcwd()}
        for variables, name, value, was in self._places:
            variables[name] = type(value)(now[was] + str(value)[len(was) :])
        sys.argv = [self._program, *request.arguments]
        sys.orig_argv = [sys.executable, *sys.argv]
        main = ModuleType("__main__")
        vars(main).update(__file__=self._program, __builtins__=__builtins__)
        sys.modules["__main__"] = main
        return self._code


def _remembered(folder: str) -> list[tuple[dict[str, Any], str, str | PurePath, str]]:
    """The variables of modules that name this folder or what is below it."""
    return [
        (variables, name, value, folder)
        for variables in [vars(module) for module in [*sys.modules.values()] if module]
        for name, value in list(variables.items())
        if isinstance(value, (str, PurePath)) and str(value).startswith(folder)
    ]


def serve(imported: Imported, listener: socket.socket, lifeline: int) -> Request:
    """Fork for each command; returns in the forks alone."""
    events = select.poll()
    events.register(listener, select.POLLIN)
    events.register(lifeline, 0)
    while True:
        if any(fd == lifeline for fd, _ in events.poll()):
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return keep(imported, connection, lifeline)
        connection.close()
        _reap()


def _reap() -> None:
    """Forget the forks that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(imported: Imported, connection: socket.socket, lifeline: int) -> Request:
    """Fork the command, and tell its exit code or end it; returns in the command alone."""
    message, descriptors, _, _ = socket.recv_fds(connection, _LARGEST, 3)
    if not message:
        os._exit(0)
    request = Request(message, descriptors)
    if different := imported.would_differ(request.variables):
        connection.send(f"imported with other values of {', '.join(different)}".encode())
        os._exit(0)
    command = os.fork()
    if command == 0:
        connection.close()
        os.close(lifeline)
        return request
    # Ctrl-C is the command's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in descriptors:
        os.close(fd)
    over = os.pidfd_open(command)
    events = select.poll()
    events.register(over, select.POLLIN)
    events.register(connection, select.POLLIN)
    events.register(lifeline, 0)
    if all(fd != over for fd, _ in events.poll()):
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    with contextlib.suppress(OSError):  # Whoever asked may be gone.
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def main() -> CodeType:
    """The program's code, in a process that is to run it."""
    folder, listener, lifeline, program, *modules = sys.argv[1:]
    imported = Imported(program, modules, folder)
    gc.collect()
    gc.freeze()  # Else the first collection of each fork would copy all that was imported.
    os.write(1, b"ready\n")
    request = serve(imported, socket.socket(fileno=int(listener)), int(lifeline))
    return imported.become(request)


if __name__ == "__main__":
    code = main()
    exec(code, vars(sys.modules["__main__"]))
