"""The process that unpacks one layer. It sees the layer's folder, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import sys

from neuro.engines.images import compression, confinement, tar
from neuro.engines.images.extracting import Extraction
from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Recorder

_BLOB, _RECORDS = 4, 5


def main() -> None:
    """Unpack what descriptor 4 holds into the folder that is named, as far as the limits allow."""
    folder, limits = sys.argv[1], Limits(**json.loads(sys.argv[2]))
    start = os.pread(_BLOB, 4, 0)  # four bytes: which code is needed has to be loaded now
    make = compression.decompressors(compression.kind_of(start))
    hashlib.sha256()
    records = os.fdopen(_RECORDS, "w", encoding="ascii")

    def unpack(root: int, owners: int) -> dict[str, object]:
        with records:
            extraction = Extraction(root, Recorder(records, limits), limits, owners)
            ahead = compression.Ahead(compression.pieces(_BLOB, make, limits))
            extraction.run(tar.Archive(iter(ahead)))
        return {
            "digest": f"sha256:{ahead.digest}",
            "size": extraction.size,
            "entries": extraction.entries,
            "implied": extraction.implied,
        }

    seconds = limits.cpu_seconds(os.fstat(_BLOB).st_size)
    confinement.run(folder, unpack, passed=2, largest=limits.size, seconds=seconds)
