"""Starting a process that works on layers (``confinement``), and hearing what came of it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.stopping import Stop, Stopped
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT, python

_START = (
    # First above all places, so that none is overwritten before it is copied.
    "import fcntl, os; high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in {passed!r}];"
    "[os.dup2(fd, 3 + at) for at, fd in enumerate(high)];"
    "import sys; sys.path[:0] = {paths!r};"
    "from neuro.engines.images.{module} import main; main()"
)
_LIBRARIES = ("isal", "backports")
_WORK = {"unpacker": "unpacked", "merger": "merged", "packer": "read"}


_LOOK_SECONDS = 0.1


class Turns:
    """A few turns for everybody, of which one person has ``of_one`` at most.

    A layer that somebody made for it takes minutes, and there may be any number of these.
    """

    def __init__(self, turns: int, of_one: int) -> None:
        self._free = turns
        self._of_one = of_one
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, stop: Stop) -> Iterator[None]:
        """Have a turn, for the person of ``stop``. Raises Stopped."""
        person = stop.person
        with self._changed:
            while not (self._free and self._held[person] < self._of_one):
                self._changed.wait(_LOOK_SECONDS)
                stop.check()
            self._free -= 1
            self._held[person] += 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._held[person] -= 1
                if not self._held[person]:
                    del self._held[person]
                self._changed.notify_all()


# Each takes a core and some of the memory, so they take turns. One is always for another person.
_OF_ONE = max(2, min(4, os.cpu_count() or 1))
_TURNS = Turns(_OF_ONE + 1, _OF_ONE)


def turn(stop: Stop) -> AbstractContextManager[None]:
    """Be one of the few of this server who have such a process. Raises Stopped."""
    return _TURNS.take(stop)


class LayerProcess:
    """``main`` of a module beside this one; it has ``passed`` as descriptors 4, 5 and so on."""

    def __init__(self, module: str, passed: Sequence[int], *arguments: str) -> None:
        self._stopped = threading.Event()
        self._work = _WORK[module]
        self._report, told = os.pipe()
        handed = (told, *passed)
        code = _START.format(passed=handed, paths=_paths(), module=module)
        try:
            self._process = subprocess.Popen(
                [*python(), "-c", code, *arguments],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={},
                cwd="/",
            )
        except BaseException:
            os.close(self._report)
            raise
        finally:
            os.close(told)

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped.set()
        self._process.kill()

    def wait(self) -> dict[str, Any]:
        """Its answer. Raises ImageFault and Stopped, and OSError for our own trouble."""
        with os.fdopen(self._report, "rb") as report:
            told = report.read()
        errors = self._process.communicate()[1]
        if self._stopped.is_set():
            raise Stopped
        if not told:
            raise OSError(0, _end(self._process.returncode, errors))
        answer: dict[str, Any] = json.loads(told)
        if "trouble" in answer:
            raise OSError(0, f"a layer cannot be {self._work}: {answer['trouble']}")
        if "kind" in answer:
            raise ImageFault(FaultKind(answer["kind"]), answer["sentence"])
        return answer


def _paths() -> list[str]:
    """Where Python finds this package and the decompressors: there are no site packages."""
    found = {PACKAGE_ROOT: None}
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            found[os.path.dirname(place)] = None
    return list(found)


def _end(code: int, errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    if lines:
        return f"the process that unpacks layers failed: {lines[-1]}"
    if code < 0:
        return f"the process that unpacks layers was killed ({signal.Signals(-code).name})"
    return "the process that unpacks layers was killed"
