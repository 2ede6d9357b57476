"""One RUN of a Dockerfile: a command in a root made of layers, in a fence inside the job's own.

``run_step`` works only in a run with ``RunSpec.nesting``. What it promises:

- The command sees the layers with ``upper`` above them, its mounts, and the job's network. It does
  not see the builder: no process, file, credential or descriptor of it, nor the cache or another
  step. It has the system calls that every job has, and Docker's usual capabilities less
  ``CAP_MKNOD``, over its own namespaces alone.
- What it changes is in ``upper`` afterwards, and nothing else is: no place of a mount, no file of
  the job's, such as its ``/etc/resolv.conf``. Whiteouts and opaque folders are overlayfs' own with
  ``user.overlay.`` attributes. What is in ``upper`` is not on the disk yet: it is the caller's to
  ``syncfs`` before it tells anybody that a layer is whole.
- When it returns, or raises, no process of the step is left.
- It may be called in several threads at once.

A step is a process of its own (``stepper``), a new one: it has nothing of the builder's memory, and
no thread of the builder's holds a lock in it.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from neuro.builder import uppers
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT, python

if TYPE_CHECKING:
    import subprocess

STDOUT, STDERR = 1, 2
_PORTION = 64 << 10
_KILLED = 137
_START = (
    "import sys; sys.path.insert(0, {root!r}); from neuro.builder.stepper import main; main({fds})"
)


class StepFault(Exception):
    """The command could not be run at all; the sentence is for whoever builds the image."""


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """What is at ``source`` in the job, or in a tree of ``layers``, at an absolute ``target``.

    With ``layers`` (lowest first; ``host`` as in ``StepRun``) the source is a path below their
    root, looked up as a process with that root would, and the mount is read-only whatever
    ``read_only`` says. Without, no link is followed on the way to the source. A source is a folder
    or a file.
    """

    source: Path
    target: str
    read_only: bool = True
    layers: tuple[Path, ...] = ()
    host: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """An empty folder in memory at ``target``, of ``size`` bytes; 0 for half of the machine's."""

    target: str
    size: int = 0


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A file at ``target`` that is in memory only, with this mode and owner (ids in the image)."""

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


Mount = Bind | Memory | Secret


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    ``layers`` are folders as overlayfs has them, the lowest first; with ``host`` they lie on the
    machine's userland, as jobs without an image see it. ``upper`` and ``work`` are empty folders of
    one mount; what is left in ``work`` is of no use to anybody. ``env`` is the whole environment,
    but that ``HOME`` and ``PATH`` are filled in where it has none. ``working_dir`` is made where it
    is missing, and is part of ``upper`` then. ``user`` is as an image names it: names are looked up
    in the root's own files. Where the server is a plain user's every user is root. Without
    ``network`` there is a loopback alone. Outer mounts come first, in whatever order they are told.
    ``output`` is called with ``STDOUT`` or ``STDERR`` and bytes, in the thread that called.
    """

    layers: tuple[Path, ...]
    upper: Path
    work: Path
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    working_dir: str = "/"
    user: str = ""
    host: bool = False
    hostname: str = "build"
    network: bool = True
    mounts: tuple[Mount, ...] = ()
    output: Callable[[int, bytes], None]


class Stop:
    """Ends a step from another thread: ``run_step`` then returns 137, as after any SIGKILL."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lifelines: set[int] = set()
        self._stopped = False

    def stop(self) -> None:
        """End the step now, and every one that is begun with this later."""
        with self._lock:
            self._stopped = True
            for lifeline in self._lifelines:
                os.close(lifeline)
            self._lifelines.clear()

    def hold(self, lifeline: int) -> None:
        """Close a descriptor when it is stopped; at once, if it was."""
        with self._lock:
            if self._stopped:
                os.close(lifeline)
            else:
                self._lifelines.add(lifeline)

    def drop(self, lifeline: int) -> None:
        """Close it now, unless it is."""
        with self._lock:
            if lifeline in self._lifelines:
                self._lifelines.discard(lifeline)
                os.close(lifeline)


def run_step(step: StepRun, stop: Stop | None = None) -> int:
    """Run it to its end; its exit code, 128 and a signal's number if one ended it.

    127 and 126 are also those of a command that is not there or cannot be executed, or of a user
    that the image does not know: why is in the output. Raises StepFault where the root cannot be
    made, with the reason.
    """
    import subprocess  # no build needs it whose steps are all cached

    stop = stop or Stop()
    with ExitStack() as stack:
        order = stack.enter_context(open(os.memfd_create("step"), "r+b", buffering=0))
        order.write(json.dumps(_order(step)).encode())
        told, report = os.pipe()
        stack.callback(os.close, told)
        lifeline, held = os.pipe()
        stop.hold(held)
        stack.callback(stop.drop, held)
        handed = (order.fileno(), report, lifeline)
        code = _START.format(root=PACKAGE_ROOT, fds=", ".join(map(str, handed)))
        try:
            process = subprocess.Popen(
                [*python(), "-c", code],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                cwd="/",
            )
        except OSError as error:
            raise StepFault(f"a step cannot be started: {error.strerror}") from error
        finally:
            os.close(report)
            os.close(lifeline)
        try:
            _pass_on(process, step.output)
        finally:
            stop.drop(held)  # whatever went wrong here, it ends
            process.wait()
        answer = _answer(told)
    if "fault" in answer:
        raise StepFault(answer["fault"])
    if "trouble" in answer or "code" not in answer:
        if process.returncode < 0 or "trouble" not in answer:
            return _KILLED
        raise StepFault(answer["trouble"])
    uppers.gather(str(step.upper), str(step.work))
    return int(answer["code"])


def _order(step: StepRun) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = []
    for mount in step.mounts:
        match mount:
            case Bind():
                mounts.append(
                    {
                        "kind": "bind",
                        "source": str(mount.source),
                        "target": mount.target,
                        "read_only": mount.read_only,
                        "layers": list(map(str, mount.layers)),
                        "host": mount.host,
                    }
                )
            case Memory():
                mounts.append({"kind": "memory", "target": mount.target, "size": mount.size})
            case Secret():
                mounts.append(
                    {
                        "kind": "secret",
                        "target": mount.target,
                        "content": base64.b64encode(mount.content).decode(),
                        "mode": mount.mode,
                        "uid": mount.uid,
                        "gid": mount.gid,
                    }
                )
    return {
        "layers": list(map(str, step.layers)),
        "upper": str(step.upper),
        "work": str(step.work),
        "argv": list(step.argv),
        "env": dict(step.env),
        "working_dir": step.working_dir,
        "user": step.user,
        "host": step.host,
        "hostname": step.hostname,
        "network": step.network,
        "mounts": mounts,
    }


def _pass_on(process: subprocess.Popen[bytes], output: Callable[[int, bytes], None]) -> None:
    """Pass on what it prints, until nobody of the step can print any more."""
    import selectors

    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        selector.register(process.stdout, selectors.EVENT_READ, STDOUT)
        selector.register(process.stderr, selectors.EVENT_READ, STDERR)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _PORTION)
                if data:
                    output(key.data, data)
                else:
                    selector.unregister(key.fileobj)


def _answer(told: int) -> dict[str, Any]:
    with open(os.dup(told), "rb") as report:
        text = report.read()
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
