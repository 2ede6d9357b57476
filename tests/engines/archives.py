"""Tars for the tests of layers, and what is in a folder afterwards."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Beside, read
from neuro.engines.images.unpacking import Unpacked, Unpacking

TYPES = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def entry(
    name: str,
    kind: str = "file",
    content: bytes = b"",
    link: str = "",
    mode: int | None = None,
    owner: tuple[int, int] = (0, 0),
    time: float = 1_000_000_000,
    device: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = TYPES[kind], link, len(content), time
    info.mode = mode if mode is not None else (0o755 if kind == "folder" else 0o644)
    info.uid, info.gid = owner
    info.devmajor, info.devminor = device
    info.pax_headers = pax or {}
    return info, content


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> tuple[bytes, str]:
    """A blob as registries have it, and the digest of its archive."""
    plain = archive(*entries)
    return gzip.compress(plain, 1), "sha256:" + hashlib.sha256(plain).hexdigest()


def unpack(
    place: Path, blob: bytes, limits: Limits | None = None
) -> tuple[Unpacked, Path, dict[bytes, Beside]]:
    """Unpack a blob in a new folder: what came of it, the folder, and what is told beside it."""
    files, source = place / "files", place / "blob"
    files.mkdir()
    source.write_bytes(blob)
    fd = os.open(source, os.O_RDONLY)
    try:
        made = Unpacking(fd, str(files), str(place / "beside"), limits or Limits()).wait()
    finally:
        os.close(fd)
    with (place / "beside").open(encoding="ascii") as file:
        return made, files, read(file)


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is in a folder: of each path its kind, its mode and what is in it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
        what: object = None
        if stat.S_ISREG(kind):
            what = path.read_bytes()
        elif stat.S_ISLNK(kind):
            mode, what = 0, os.readlink(path)
        elif stat.S_ISCHR(kind):
            what = status.st_rdev
        found[str(path.relative_to(folder))] = kind, mode, what
    return found
