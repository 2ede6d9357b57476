"""What one layer may hold."""

from __future__ import annotations

from dataclasses import dataclass

from neuro.engines.images.faults import refused


@dataclass(frozen=True)
class Limits:
    """Bounds of one layer: a small file of a registry must not fill this machine's disk.

    ``size`` is of the unpacked archive in bytes, ``entries`` how many files and folders it has.
    Beyond ``ratio_from`` bytes the archive may be ``ratio`` times as large as its compressed form.
    """

    size: int = 256 << 30
    entries: int = 4_000_000
    ratio: int = 500
    ratio_from: int = 2 << 30

    def check_size(self, size: int) -> None:
        """Raises ImageFault where a layer is larger."""
        if size > self.size:
            raise refused(f"The layer is larger than {self.size} bytes when it is unpacked.")

    def check_ratio(self, unpacked: int, packed: int) -> None:
        """Raises ImageFault where a layer grows more than files do."""
        self.check_size(unpacked)
        if unpacked > self.ratio_from and unpacked > self.ratio * packed:
            raise refused(
                f"The layer grows to more than {self.ratio} times its size when it is unpacked."
            )

    def check_entries(self, entries: int) -> None:
        """Raises ImageFault where a layer has more files and folders."""
        if entries > self.entries:
            raise refused(f"The layer has more than {self.entries} files and folders.")
