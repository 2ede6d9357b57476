"""A process that has imported our commands, and forks for each one that is to run.

``python warm_commands.py FD``: ``tests.commands`` starts it, and asks by the socket ``FD``. What a
fork runs is what ``python -m PROGRAM`` runs, up to the interpreter's own end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

_PACKAGES = ("neuro.client", "neuro.domain", "neuro.cli", "neuro.flow", "neuro.dockerfile")
# What keeps the time when it was imported as that when its process began, and who imports it.
_NOT_BEFORE = {"neuro.flow.batch.effects", "neuro.flow.batch.executor"}
# The first descriptor that a program does not begin with, and one that none has.
_FIRST, _BEYOND = 3, 1 << 30

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class Running(NamedTuple):
    """A fork: what tells its end, and whom to tell it."""

    pid: int
    pidfd: int
    answer: int


def names() -> Iterator[str]:
    """The modules to import."""
    for package in map(importlib.import_module, _PACKAGES):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and module.name not in _NOT_BEFORE:
                yield module.name


def load() -> None:
    """Import what commands need."""
    for name in names():
        importlib.import_module(name)


def serve(control: socket.socket) -> list[int]:
    """Fork for each message, and tell each fork's end; it returns in forks alone.

    A message has five descriptors, which are returned: of the standard streams, of a file with
    the request, and of a socket. To that goes the exit code, as ``subprocess`` gives it. Who asked
    says by the end of that socket that the fork is to die.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    by_pidfd: dict[int, Running] = {}
    by_answer: dict[int, Running] = {}
    while True:
        # One at a time: what ends gives its numbers to what begins.
        ready = poll.poll()[0][0]
        if ready == control.fileno():
            _, received, _, _ = socket.recv_fds(control, 1, 5)
            if not received:
                _end(by_pidfd.values())
            pid = os.fork()
            if pid == 0:
                control.detach()  # It is closed with all others.
                return received
            it = Running(pid, os.pidfd_open(pid), received.pop())
            for number in received:
                os.close(number)
            by_pidfd[it.pidfd] = by_answer[it.answer] = it
            poll.register(it.pidfd, select.POLLIN)
            poll.register(it.answer, select.POLLRDHUP)
        elif (ended := by_pidfd.pop(ready, None)) is not None:
            if by_answer.pop(ended.answer, None) is not None:
                poll.unregister(ended.answer)
            poll.unregister(ended.pidfd)
            code = os.waitstatus_to_exitcode(os.waitpid(ended.pid, 0)[1])
            with contextlib.suppress(BrokenPipeError):
                os.write(ended.answer, str(code).encode())
            os.close(ended.answer)
            os.close(ended.pidfd)
        else:
            unwanted = by_answer.pop(ready)
            poll.unregister(unwanted.answer)
            signal.pidfd_send_signal(unwanted.pidfd, signal.SIGKILL)


def _end(left: Iterable[Running]) -> NoReturn:
    """End with who asked."""
    for it in left:
        signal.pidfd_send_signal(it.pidfd, signal.SIGKILL)
    os._exit(0)


def become(received: list[int]) -> str:
    """Take over what a new process is given; the program to run."""
    *streams, asked, _ = received
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.lseek(asked, 0, os.SEEK_SET)
    with open(asked, encoding="ascii") as file:
        request = json.load(file)
    os.closerange(_FIRST, _BEYOND)
    for name, limits in request["limits"].items():
        resource.setrlimit(int(name), limits)
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    for number, (name, mode) in enumerate(_STREAMS):
        stream = _stream(number, name, mode, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    program: str = request["program"]
    sys.orig_argv = [sys.executable, "-m", program, *request["words"]]
    sys.argv = [program, *request["words"]]
    sys.path.insert(0, os.getcwd())
    return program


def _stream(number: int, name: str, mode: str, made: io.TextIOWrapper) -> io.TextIOWrapper:
    """As Python makes it; ``made`` is the one that it made of another file."""
    raw: Any = io.FileIO(number, mode, closefd=False)
    raw.name = f"<{name}>"
    kind: Any = type(made.buffer)
    stream: Any = io.TextIOWrapper(
        raw if kind is io.FileIO else kind(raw),
        made.encoding,
        made.errors,
        "\n",
        made.line_buffering,
        made.write_through,
    )
    stream.mode = mode
    return stream


def main() -> str:
    """Serve; in a fork, the program to run."""
    del sys.path[0]  # Of this file.
    control = socket.socket(fileno=int(sys.argv[1]))
    load()
    gc.collect()
    gc.freeze()  # Forks share it: nothing of it is looked through there.
    control.send(b".")  # It is ready.
    return become(serve(control))


if __name__ == "__main__":
    runpy.run_module(main(), run_name="__main__", alter_sys=True)
