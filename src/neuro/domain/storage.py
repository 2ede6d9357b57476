"""Files as the wire knows them (docs/reference/wire-protocol.md#storage)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from neuro.domain.permissions import Action


class FileType(StrEnum):
    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    SYMLINK = "SYMLINK"
    UNKNOWN = "UNKNOWN"  # a pipe, a socket, a device: never opened


class FileStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry: ``length`` in bytes, ``modificationTime`` in unix seconds, caller's permission.

    ``path`` is the base name in a listing and the full path ``/owner/…`` elsewhere.
    """

    path: str
    length: int
    type: FileType
    modificationTime: int
    permission: Action
    target: str | None = None


class FileStatusEnvelope(msgspec.Struct, frozen=True):
    FileStatus: FileStatus


class DiskUsage(msgspec.Struct, frozen=True):
    """Bytes of the file system under the storage."""

    total: int
    used: int
    free: int


class Removed(msgspec.Struct, frozen=True):
    """One line of the answer to a removal."""

    path: str
    is_dir: bool
