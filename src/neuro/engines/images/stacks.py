"""Layers above each other, and what overlayfs would not show of them as it is meant.

Of a folder that several layers have, overlayfs shows mode and owner of the uppermost. Where that
layer's archive has no entry for the folder, nobody said what they are: those below count.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from neuro.engines.images import records
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import open_folder

_MODE = 0o755  # of a folder without an entry


@dataclass(frozen=True)
class Layer:
    """A layer on this machine: ``files`` is the folder to mount, ``beside`` says more of them.

    ``implied`` is whether it may have folders that its archive has no entry for.
    """

    diff_id: str
    files: str
    beside: str
    size: int
    implied: bool


def misshown(layers: Sequence[Layer]) -> int:
    """How many of the layers, from the lowest on, have to be merged because of such folders.

    Raises OSError.
    """
    for count in range(len(layers), 1, -1):
        layer = layers[count - 1]
        if layer.implied and any(_hides(layer, below) for below in layers[: count - 1]):
            return count
    return 0


def _hides(layer: Layer, below: Layer) -> bool:
    """Whether a layer's implied folders would show otherwise than the layer below says."""
    with open(layer.beside, encoding="ascii") as file:
        told = records.folders(file, Limits())
        implied = [path for path, one in told.items() if one.implied]
    root = os.open(below.files, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return any(_differs(root, path) for path in implied)
    finally:
        os.close(root)


def _differs(root: int, path: bytes) -> bool:
    try:
        folder = open_folder(root, path)
    except OSError as error:
        # No folder is there, or it is one that we may not look into, but who merges may.
        return error.errno == errno.EACCES
    try:
        status = os.fstat(folder)
    finally:
        os.close(folder)
    if stat.S_IMODE(status.st_mode) != _MODE:
        return True
    return os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, 0)
