"""The process that packs a layer. It sees the folder with what is packed, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict

from neuro.engines.images import compression, confinement
from neuro.engines.images.limits import Limits, check_spare
from neuro.engines.images.packing import Part, pack

_BLOB = 4
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def main() -> None:
    """Pack folders of the one that is named into what descriptor 4 leads to.

    The second argument is JSON: ``parts`` (name of a folder, place in the image), ``without``,
    ``base``, the user of the machine that is the image's user 0, ``seconds`` of processor time that
    it may take, and ``spare``, bytes that stay free on the disk.
    """
    folder, order = sys.argv[1], json.loads(sys.argv[2])
    compression.compressor(0)  # what is needed has to be loaded now
    hashlib.sha256()
    limits = Limits()

    def write(piece: bytes) -> None:
        check_spare(_BLOB, order["spare"])
        left = memoryview(piece)
        while left:
            left = left[os.write(_BLOB, left) :]

    def packed(root: int, owners: int) -> dict[str, object]:
        parts = [
            Part(os.open(name, _FOLDER, dir_fd=root), place.encode())
            for name, place in order["parts"]
        ]
        without = [path.encode() for path in order["without"]]
        return asdict(pack(parts, write, without=without, limits=limits))

    confinement.run(
        folder,
        packed,
        passed=1,
        largest=limits.size,
        seconds=order["seconds"],
        base=order["base"],
    )
