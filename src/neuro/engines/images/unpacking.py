"""Unpacking a layer, by a process that sees only the folder in which the layer goes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from neuro.engines.images import records
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import open_folder
from neuro.engines.images.processes import LayerProcess

_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True)
class Unpacked:
    """What a layer turned out to be: the digest of its archive (diff id), and how large.

    ``implied`` is whether it may have folders that its archive has no entry for (``records``).
    """

    digest: str
    size: int
    entries: int
    implied: bool


class Unpacking:
    """One layer that is being unpacked from the open file ``blob``, from its beginning.

    ``target`` is an empty folder, ``beside`` the file that gets what the files cannot say of
    themselves (``records``). How far it is, is the position in ``blob``.
    """

    def __init__(self, blob: int, target: str, beside: str, limits: Limits) -> None:
        self._target, self._beside, self._limits = target, beside, limits
        os.lseek(blob, 0, os.SEEK_SET)
        told = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            bounds = json.dumps(asdict(limits))
            self._process = LayerProcess("unpacker", (blob, told), target, bounds)
        finally:
            os.close(told)

    def stop(self) -> None:
        """End it, from another thread."""
        self._process.stop()

    def wait(self) -> Unpacked:
        """Raises ImageFault where the layer is not taken, Stopped, and OSError for our own trouble.

        What is in the target then is of no use.
        """
        answer = self._process.wait()
        if _may_mark():
            _mark_opaque(self._target, self._beside, self._limits)
        return Unpacked(**answer)


def _may_mark() -> bool:
    """Whether we are the machine's root: in a run, root mounts in user namespaces only."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def _mark_opaque(target: str, beside: str, limits: Limits) -> None:
    """Say it in the way of mounts that root makes, too; the unpacker has no right to.

    The paths were written by a process that read a stranger's archive: none leads out.
    """
    with open(beside, encoding="ascii") as file:
        marked = [path for path, one in records.folders(file, limits).items() if one.opaque]
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in marked:
            folder = open_folder(root, path)
            try:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
                try:
                    os.setxattr(fd, _OPAQUE, b"y")
                finally:
                    os.close(fd)
            finally:
                os.close(folder)
    finally:
        os.close(root)
