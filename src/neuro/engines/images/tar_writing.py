"""Headers of a tar: ustar, with pax records for what ustar has no room for.

Every reader of layers knows both: docker, containerd, GNU tar, and ours (``tar``).
"""

from __future__ import annotations

import struct

from neuro.engines.images.tar import BLOCK, BLOCK_DEVICE, CHARACTER, FILE, FOLDER, Entry

END = bytes(2 * BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_MAGIC, _VERSION = b"ustar\0", b"00"
_BLANK_SUM = b" " * 8
_PAX = b"x"
_PAX_NAME = b"PaxHeaders.0/"
_NAME, _SMALL, _LARGE = 100, 7, 11  # bytes of a name; octal digits of an id, and of a size
_SECOND = 10**9


def padding(size: int) -> bytes:
    """What follows ``size`` bytes of a file, up to the next block."""
    return bytes(-size % BLOCK)


def header(entry: Entry) -> bytes:
    """All that comes before the content of a file, or is all of anything else."""
    name = entry.name + b"/" if entry.kind == FOLDER else entry.name
    seconds, fraction = divmod(entry.time, _SECOND)
    size = entry.size if entry.kind == FILE else 0
    records = _records(entry, name, size, seconds, fraction)
    parts = []
    if records:
        base = _PAX_NAME + entry.name.rpartition(b"/")[2]
        parts = [_ustar(base[:_NAME], _PAX, 0o644, len(records)), records, padding(len(records))]
    parts.append(
        _ustar(
            name[:_NAME],
            entry.kind,
            entry.mode,
            size if _fits(size, _LARGE) else 0,
            user=entry.user if _fits(entry.user, _SMALL) else 0,
            group=entry.group if _fits(entry.group, _SMALL) else 0,
            seconds=seconds if _fits(seconds, _LARGE) else 0,
            link=entry.link[:_NAME],
            device=entry.device if entry.kind in (CHARACTER, BLOCK_DEVICE) else (0, 0),
        )
    )
    return b"".join(parts)


def _records(entry: Entry, name: bytes, size: int, seconds: int, fraction: int) -> bytes:
    """The pax records of an entry, in an order that depends on nothing else."""
    found: list[tuple[bytes, bytes]] = []
    if len(name) > _NAME:
        found.append((b"path", name))
    if len(entry.link) > _NAME:
        found.append((b"linkpath", entry.link))
    if not _fits(size, _LARGE):
        found.append((b"size", b"%d" % size))
    if not _fits(entry.user, _SMALL):
        found.append((b"uid", b"%d" % entry.user))
    if not _fits(entry.group, _SMALL):
        found.append((b"gid", b"%d" % entry.group))
    if fraction or not _fits(seconds, _LARGE):
        found.append((b"mtime", _time(seconds, fraction)))
    for key in sorted(entry.xattrs):
        encoded = b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape")
        found.append((encoded, entry.xattrs[key]))
    return b"".join(_record(key, value) for key, value in found)


def _time(seconds: int, fraction: int) -> bytes:
    sign = b""
    if seconds < 0:  # a decimal number: -1.25 is 1.25 seconds before 1970
        sign = b"-"
        seconds, fraction = (-seconds - 1, _SECOND - fraction) if fraction else (-seconds, 0)
    digits = (b".%09d" % fraction).rstrip(b"0") if fraction else b""
    return b"%s%d%s" % (sign, seconds, digits)


def _record(key: bytes, value: bytes) -> bytes:
    """One record: its length, which counts its own digits, the key and the value."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if rest + len(str(size)) != size:
        size += 1
    return b"%d %s=%s\n" % (size, key, value)


def _fits(number: int, digits: int) -> bool:
    return 0 <= number < 1 << 3 * digits


def _ustar(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    *,
    user: int = 0,
    group: int = 0,
    seconds: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    fields = [
        name,
        *(b"%07o\0" % number for number in (mode, user, group)),
        b"%011o\0" % size,
        b"%011o\0" % seconds,
        _BLANK_SUM,
        kind,
        link,
        _MAGIC,
        _VERSION,
        b"",
        b"",
        *(b"%07o\0" % number for number in device),
        b"",
    ]
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)
