"""The process that merges layers. It sees the store, and nothing else."""

from __future__ import annotations

import json
import os
import sys

from neuro.engines.images import confinement, records
from neuro.engines.images.limits import Limits
from neuro.engines.images.merging import Merging

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LARGEST = 1 << 62  # files are only linked
_SECONDS = 3600  # of processor time, for the links of a hundred million files


def main() -> None:
    """Merge what is named: the store, the target in it, and folders of layers from the lowest."""
    store, target, layers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

    def merge(root: int, owners: int) -> dict[str, object]:
        made = os.open(target, _FOLDER, dir_fd=root)
        merging = Merging(made)
        for layer in layers:
            files = os.open(f"{layer}/files", _FOLDER, dir_fd=root)
            with os.fdopen(os.open(f"{layer}/beside", os.O_RDONLY, dir_fd=root)) as file:
                told = records.folders(file, Limits())
            merging.add(files, {path for path, one in told.items() if one.implied})
            os.close(files)
        merging.end()
        return {}

    confinement.run(store, merge, passed=0, largest=_LARGEST, seconds=_SECONDS)
