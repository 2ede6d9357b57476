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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STDOUT, STDERR = 1, 2


class StepFault(Exception):
    """The command could not be run at all; the sentence is for whoever builds the image."""


@dataclass(frozen=True, kw_only=True)
class Bind:
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


@dataclass(frozen=True, kw_only=True)
class Memory:
    """An empty folder in memory at ``target``, of ``size`` bytes; 0 for half of the machine's."""

    target: str
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A file at ``target`` that is in memory only, with this mode and owner (ids in the image)."""

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


Mount = Bind | Memory | Secret


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """What to run.

    ``layers`` are folders as overlayfs has them, the lowest first; with ``host`` they lie on the
    machine's userland, as jobs without an image see it. ``upper`` and ``work`` are empty folders of
    one mount and of the build's own. ``env`` is the whole environment, but that ``HOME`` and
    ``PATH`` are filled in where it has none. ``working_dir`` is made where it is missing, and is
    part of ``upper`` then. ``user`` is as an image names it: names are looked up in the root's own
    files. Without ``network`` there is a loopback alone. Outer mounts come first, in whatever order
    they are told. ``output`` is called with ``STDOUT`` or ``STDERR`` and bytes, in the thread that
    called.
    """

    layers: tuple[Path, ...]
    upper: Path
    work: Path
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
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
        raise NotImplementedError

    def stop(self) -> None:
        """End it now, and a step that is begun with this later too."""
        raise NotImplementedError


def run_step(step: StepRun, stop: Stop | None = None) -> int:
    """Run it to its end; its exit code, 128 and a signal's number if one ended it.

    127 and 126 are also those of a command that is not there or cannot be executed, or of a user
    that the image does not know: why is in the output. Raises StepFault where the root cannot be
    made, with the reason.
    """
    raise NotImplementedError
