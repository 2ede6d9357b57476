"""Our commands run to their end: most are forks of a process that has imported them.

Most of a short command's time is its start. What a fork is given is what a new process would be:
``tests/cli/test_forks.py`` compares both. Only its ``sys.modules`` has more in it: what looks at
that, at the time of a start, at a terminal or at signals is a process of its own.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import re
import resource
import selectors
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

_PROGRAM = Path(__file__).with_name("warm_commands.py")
# What is read before a fork has its own: by the interpreter, and by modules when they are imported.
EARLY = re.compile(r"LANG|LC_|LD_|MALLOC_|PYTHON|SSL|.*_NO_EXTENSIONS$")
# What asks for a shell's completion is a new process each time.
_COMPLETES = re.compile(r"_NEURO\w*_COMPLETE$")
_ROOM = 8192  # characters of input, which any pipe takes at once
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]

Done = subprocess.CompletedProcess[str]


def run(
    program: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stdin: str | None = None,
    seconds: float,
) -> Done:
    """Run ``python -m PROGRAM`` to its end; ``stdin`` is None for no input at all.

    Raises ``subprocess.TimeoutExpired`` after so many seconds.
    """
    is_like_ours = _early(environment) == _early(os.environ) == WARM.early
    completes = any(map(_COMPLETES.match, environment))
    is_long = len(stdin or "") > _ROOM
    way = whole if completes or is_long or not is_like_ours else WARM.run
    return way(program, words, environment=environment, folder=folder, stdin=stdin, seconds=seconds)


def whole(
    program: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stdin: str | None = None,
    seconds: float,
) -> Done:
    """``run`` as a new process."""
    return subprocess.run(
        [sys.executable, "-m", program, *words],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL if stdin is None else None,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


class Warm:
    """A process that forks. It begins when it is first needed, and ends with this process."""

    def __init__(self, program: Path = _PROGRAM) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self.early = _early(os.environ)

    def run(
        self,
        program: str,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        stdin: str | None = None,
        seconds: float,
    ) -> Done:
        """``run`` as a fork; ``stdin`` is short. Raises RuntimeError where what forks has died."""
        request = {
            "program": program,
            "words": list(words),
            "environment": dict(environment),
            "folder": os.path.abspath(folder),
            "umask": _umask(),
            "limits": {number: resource.getrlimit(number) for number in _LIMITS},
        }
        command = [sys.executable, "-m", program, *words]
        with ExitStack() as stack:
            given, giver = _pipe(stack)
            out, out_end = _pipe(stack)
            err, err_end = _pipe(stack)
            ours, theirs = map(stack.enter_context, socket.socketpair())
            asked = stack.enter_context(open(os.memfd_create("request"), "w+b", 0))
            if stdin is None:
                given = stack.enter_context(open(os.devnull, "rb", 0))
            giver.write((stdin or "").encode())
            asked.write(json.dumps(request).encode())
            self._ask([it.fileno() for it in (given, out_end, err_end, asked, theirs)])
            for end in (given, giver, out_end, err_end, asked, theirs):
                end.close()
            said = [bytearray() for _ in range(3)]
            if not _read([out.fileno(), err.fileno(), ours.fileno()], said, seconds):
                ours.shutdown(socket.SHUT_WR)  # It is killed.
                while ours.recv(1024):
                    pass
                raise subprocess.TimeoutExpired(command, seconds, bytes(said[0]), bytes(said[1]))
        if not said[2]:
            raise RuntimeError(f"{self._program.name} has died before {shlex.join(command)} ended")
        return subprocess.CompletedProcess(command, int(said[2]), _text(said[0]), _text(said[1]))

    def _ask(self, descriptors: Sequence[int]) -> None:
        with self._lock:
            if self._control is None:
                self._control = self._start()
        try:
            socket.send_fds(self._control, [b"."], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            raise RuntimeError(f"{self._program.name} has died") from None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.early = _early(os.environ)
        number = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, str(self._program), str(number)],
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()

        def end() -> None:
            ours.shutdown(socket.SHUT_RDWR)  # also where a child of this process has it, too
            ours.close()
            process.wait()

        atexit.register(end)
        # What it imports takes a while, which is not the time of the command that comes first.
        if not ours.recv(1):
            raise RuntimeError(f"{self._program.name} has died")
        return ours


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if EARLY.match(name)}


def _umask() -> int:
    """That of this process, which ``os.umask`` would change for the other threads as well."""
    found = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1], 8)


def _pipe(stack: ExitStack) -> list[io.FileIO]:
    """Both ends, closed at the end."""
    return [
        stack.enter_context(io.FileIO(end, mode)) for end, mode in zip(os.pipe(), "rw", strict=True)
    ]


def _read(sources: Sequence[int], said: Sequence[bytearray], seconds: float) -> bool:
    """Add all that comes to what is said, up to the ends; False where that takes longer."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for source, its in zip(sources, said, strict=True):
            selector.register(source, selectors.EVENT_READ, its)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready:
                return False
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fd)
    return True


def _text(said: bytes) -> str:
    """As ``subprocess`` reads text."""
    return io.TextIOWrapper(io.BytesIO(said), encoding="locale").read()


WARM = Warm()
