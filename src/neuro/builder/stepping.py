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

A step is a process of its own (``stepper``). It is no fork of the builder, but of a small process
that never knew anything of the builder's (``starting``): it has nothing of the builder's memory,
and no thread of the builder's holds a lock in it.
"""

from __future__ import annotations

import marshal
import os
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from neuro.builder import uppers
from neuro.builder.starting import Starter
from neuro.engines.sandbox import nesting
from neuro.engines.sandbox.nesting import Given

STDOUT, STDERR = 1, 2
_PORTION = 64 << 10
_KILLED = 137


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


def run_step(step: StepRun, starter: Starter, stop: Stop | None = None) -> int:
    """Run it to its end; its exit code, 128 and a signal's number if one ended it.

    127 and 126 are also those of a command that is not there or cannot be executed, or of a user
    that the image does not know: why is in the output. Raises StepFault where the root cannot be
    made, with the reason.
    """
    given = nesting.read()
    if given is None:
        raise StepFault("images are built in jobs that build images, and in no others")
    stop = stop or Stop()
    with ExitStack() as stack:
        order = stack.enter_context(open(os.memfd_create("step"), "r+b", buffering=0))
        order.write(marshal.dumps(_order(step, given)))
        told, out, errors = (_Pipe(stack) for _ in range(3))
        lifeline, held = os.pipe()
        stop.hold(held)
        stack.callback(stop.drop, held)
        handed = (order.fileno(), told.end, lifeline, out.end, errors.end)
        try:
            starter.begin(*handed)
        except OSError as error:
            raise StepFault(f"a step cannot be started: {error.strerror or error}") from error
        finally:
            os.close(lifeline)
            for pipe in (told, out, errors):
                pipe.close_end()
        try:
            _pass_on({out.start: STDOUT, errors.start: STDERR}, step.output)
        finally:
            stop.drop(held)  # whatever went wrong here, it ends
            # The step's first process has the other end until it is over, as all of it is then.
            kind, what = _answer(told.start)
    if kind == "fault":
        raise StepFault(what)
    if kind != "code":
        return _KILLED
    uppers.gather(str(step.upper), str(step.work))
    return int(what)


class _Pipe:
    """A pipe whose ``end`` somebody else is given; what comes out at its ``start`` is ours."""

    def __init__(self, stack: ExitStack) -> None:
        self.start, self.end = os.pipe()
        stack.callback(os.close, self.start)

    def close_end(self) -> None:
        os.close(self.end)


def _order(step: StepRun, given: Given) -> dict[str, Any]:
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
                        "content": mount.content,
                        "mode": mount.mode,
                        "uid": mount.uid,
                        "gid": mount.gid,
                    }
                )
    return {
        "given": vars(given),
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


def _pass_on(streams: dict[int, int], output: Callable[[int, bytes], None]) -> None:
    """Pass on what it prints, until nobody of the step can print any more."""
    poll = select.poll()
    for fd in streams:
        poll.register(fd, select.POLLIN)
    left = len(streams)
    while left:
        for fd, _ in poll.poll():
            data = os.read(fd, _PORTION)
            if data:
                output(streams[fd], data)
            else:
                poll.unregister(fd)
                left -= 1


def _answer(told: int) -> tuple[str, str]:
    """What the step's processes say when they are over: a word, and what it is about."""
    with open(os.dup(told), "rb") as report:
        kind, _, what = report.read().decode("utf-8", "replace").partition(" ")
    return kind, what
