"""What tests do with disks that are too small."""

from __future__ import annotations

from pathlib import Path


def fill(folder: Path) -> Path:
    """Leave no space on a disk; the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    return filler
