"""A folder as one zip file, made while it is sent."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from typing import BinaryIO

from neuro.actions.filebrowser.tree import Path, Tree

_CHUNK = 1 << 18
_FIRST_YEAR = 1980  # No zip file can say anything earlier.


class _Outlet:
    """What zipfile takes for a file that cannot seek."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send

    def write(self, data: bytes, /) -> int:
        self._send(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held here."""


def send_zip(tree: Tree, path: Path, send: Callable[[bytes], object]) -> None:
    """Send every file below a folder. Links are not in it."""
    with zipfile.ZipFile(_Outlet(send), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in tree.files_below(path):
            if file is None:
                archive.writestr(zipfile.ZipInfo(_shown(name)), b"")
            else:
                _add(archive, name, file)


def _add(archive: zipfile.ZipFile, name: str, file: BinaryIO) -> None:
    found = os.fstat(file.fileno())
    modified = time.localtime(found.st_mtime)[:6]
    info = zipfile.ZipInfo(
        _shown(name), modified if modified[0] >= _FIRST_YEAR else (_FIRST_YEAR, 1, 1, 0, 0, 0)
    )
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (found.st_mode & 0xFFFF) << 16
    # A file may grow while it is read, so nothing is promised about its size.
    with archive.open(info, "w", force_zip64=True) as member:
        while data := file.read(_CHUNK):
            member.write(data)


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
