"""What one layer may hold."""

from __future__ import annotations

import os
from dataclasses import dataclass

from neuro.engines.images.faults import FaultKind, ImageFault, refused

_LEAST_SECONDS = 300  # four million files take that long
_SLOWEST = 1 << 20  # bytes of a blob in a second; usual is fifty times as much
_SLOWEST_PACKED = 8 << 20  # bytes of files in a second
_SPARE, _SHARE = 1 << 30, 20  # bytes that stay free on the disk, or this part of a small one
_SPARE_FILES = 100_000  # and files, where a disk can have a certain number of them


@dataclass(frozen=True)
class Limits:
    """Bounds of one layer: a small file of a registry must not fill this machine's disk.

    ``size`` is of the unpacked archive in bytes, ``entries`` how many files and folders it has.
    Beyond ``ratio_from`` bytes the archive may be ``ratio`` times as large as its compressed form.
    ``beside`` is bytes of what its files cannot say of themselves (``records``), and ``told`` how
    many lines of it are about folders, which this server reads. ``spare`` is bytes that stay free
    on the disk.
    """

    size: int = 256 << 30
    entries: int = 4_000_000
    ratio: int = 500
    ratio_from: int = 2 << 30
    beside: int = 256 << 20
    told: int = 200_000
    spare: int = 0

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

    def check_beside(self, size: int, told: int) -> None:
        """Raises ImageFault where more is to be known of a layer's files than is kept."""
        if size > self.beside or told > self.told:
            raise refused(
                "The layer has too many files with owners or attributes that must be kept beside"
                " it, or too many folders that it hides or does not name. Make it anew from fewer"
                " files."
            )

    def cpu_seconds(self, packed: int) -> int:
        """How much processor time the unpacking of so many bytes may take."""
        return _LEAST_SECONDS + packed // _SLOWEST


def packing_seconds(allocated: int) -> int:
    """How much processor time the packing of files may take that have so many bytes on the disk.

    Holes are not among them: anybody can make a terabyte of these.
    """
    return _LEAST_SECONDS + allocated // _SLOWEST_PACKED


def spare_of(disk: os.statvfs_result) -> int:
    """How many bytes of a disk are to stay free."""
    return min(_SPARE, disk.f_blocks * disk.f_frsize // _SHARE)


def check_spare(file: int, spare: int) -> None:
    """Raises ImageFault where less than ``spare`` bytes are free on an open file's disk.

    So it does where the disk can have few files more: four layers of empty ones, a megabyte each,
    could take all that a disk of 250 GB can have.
    """
    disk = os.fstatvfs(file)
    check_files(disk)
    free = disk.f_bavail * disk.f_frsize
    if free < spare:
        raise no_room(free, spare)


def check_files(disk: os.statvfs_result) -> None:
    """Raises ImageFault where a disk can have few files more; many file systems have no limit."""
    spare = min(_SPARE_FILES, disk.f_files // _SHARE)
    if disk.f_favail < spare:
        raise ImageFault(
            FaultKind.NO_ROOM,
            f"There is no room on the disk of images: it can have {disk.f_favail} files more, and"
            f" {spare} are to stay free.",
        )


def no_room(free: int, wanted: int) -> ImageFault:
    """There is not enough room on the disk for ``wanted`` bytes more."""
    return ImageFault(
        FaultKind.NO_ROOM,
        f"There is no room on the disk of images: {_mebibytes(free)} are free, and"
        f" {_mebibytes(wanted)} are needed.",
    )


def _mebibytes(size: int) -> str:
    return f"{max(0, size) >> 20} MiB"
