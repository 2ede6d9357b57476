"""Reading a tar as it streams by: ustar, pax and GNU, as docker, GNU tar and libarchive write it.

Not ``tarfile``: that takes four times as long over an entry, and guesses where it should refuse.
Names stay bytes, which is what file systems have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from neuro.engines.images.faults import ImageFault, corrupt, refused, shown
from neuro.engines.images.sparse import (
    MOST_SEGMENTS,
    Segment,
    checked_map,
    old_header,
    parse_numbers,
)

BLOCK = 512
_LARGEST_HEADER = 1 << 20  # of pax records and of long names
_LARGEST_OF_ALL = 64 << 10  # of pax records for all files that follow: git writes 50 bytes
_MOST_EXTENSIONS = 64  # headers before one file: two are usual
_LONGEST_NUMBER = 20
_LONGEST_NAME = 4095
_ZEROS = bytes(BLOCK)
# struct posix_header; what follows the numbers of a device is the prefix, in ustar
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_USTAR, _GNU = b"ustar\0", b"ustar "

FILE, HARD_LINK, LINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_FILES = (FILE, b"\0", b"7")  # 7 is "contiguous", which nothing has been for forty years
_BODILESS = (HARD_LINK, LINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO)
_LABEL, _GNU_FOLDER, _SPARSE = b"V", b"D", b"S"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_OF_SOLARIS, _PAX_OF_ALL = b"x", b"X", b"g"
_XATTR = b"SCHILY.xattr."
_EARLIEST, _LATEST = -(1 << 33), 1 << 34  # seconds: what ext4 and XFS can keep, and more


@dataclass(slots=True)
class Entry:
    """One thing in an archive. ``kind`` is one of this module's constants.

    ``size`` is that of the file, holes included, ``time`` of its last change in nanoseconds.
    """

    name: bytes
    kind: bytes
    mode: int
    user: int
    group: int
    size: int
    time: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes] = field(default_factory=dict)


class _Stream:
    """Pieces of bytes as one run of bytes, copied only where a read spans two pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._at = 0

    def some(self, most: int) -> memoryview:
        """At least one byte and at most so many; nothing at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = memoryview(next(self._pieces, b"")), 0
        found = self._piece[self._at : self._at + most]
        self._at += len(found)
        return found

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or none at the end. Raises ImageFault where it ends in between."""
        found = self._piece[self._at : self._at + size]
        if len(found) == size:
            self._at += size
            return bytes(found)
        whole = bytearray()
        while len(whole) < size:
            part = self.some(size - len(whole))
            if not part:
                if whole:
                    raise _cut()
                return b""
            whole += part
        return bytes(whole)

    def skip(self, size: int) -> None:
        while size:
            part = self.some(size)
            if not part:
                raise _cut()
            size -= len(part)

    def drain(self) -> None:
        while self.some(1 << 20):
            pass


def _cut() -> ImageFault:
    return corrupt("The layer's archive ends in the middle of a file.")


class Archive:
    """The entries of a tar, one after the other; ``data`` is of the last one.

    Raises ImageFault where the archive is damaged.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._stream = _Stream(pieces)
        self._left = 0  # bytes of the current entry in the archive
        self._padding = 0
        self._map: list[Segment] | None = None
        self._for_all: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        own: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}
        extensions = 0
        while header := self._stream.read(BLOCK):
            if header == _ZEROS:
                break
            extensions += 1
            if extensions > _MOST_EXTENSIONS:
                raise refused("The layer's archive has too many headers before one file.")
            fields = _HEADER.unpack(header)
            _check_sum(header, fields[6])
            kind, size = fields[7], _number(fields[4])
            if size < 0:
                raise corrupt("The layer's archive has a file of less than no bytes.")
            if kind in (_LONG_NAME, _LONG_LINK):
                long[kind] = self._extension(size).partition(b"\0")[0]
            elif kind in (_PAX, _PAX_OF_SOLARIS):
                own = _pax(self._extension(size))
            elif kind == _PAX_OF_ALL:
                self._set_for_all(_pax(self._extension(size)))
            elif kind == _LABEL:
                self._stream.skip(_padded(size))
            else:
                entry = self._entry(header, fields, {**self._for_all, **own}, long)
                own, long, extensions = {}, {}, 0
                yield entry
                self._pass()
        if own or long:
            raise _cut()
        self._stream.drain()  # the digest is that of everything

    def _set_for_all(self, records: dict[bytes, bytes]) -> None:
        self._for_all.update(records)
        size = sum(len(key) + len(value) for key, value in self._for_all.items())
        if size > _LARGEST_OF_ALL:
            raise refused("The layer's archive has more than 64 KiB of headers for all its files.")

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """What is to be written to the current file, and where."""
        if self._map is None:
            yield from self._run(0, self._left)
        else:
            for offset, length in self._map:
                yield from self._run(offset, length)

    def _run(self, offset: int, length: int) -> Iterator[tuple[int, memoryview]]:
        while length:
            part = self._stream.some(length)
            if not part:
                raise _cut()
            self._left -= len(part)
            yield offset, part
            offset += len(part)
            length -= len(part)

    def _pass(self) -> None:
        self._stream.skip(self._left + self._padding)
        self._left = self._padding = 0

    def _extension(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise refused("The layer's archive has a header of more than 1 MiB.")
        found = self._stream.read(_padded(size))
        if size and not found:
            raise _cut()
        return found[:size]

    def _entry(
        self,
        header: bytes,
        fields: tuple[bytes, ...],
        pax: dict[bytes, bytes],
        long: dict[bytes, bytes],
    ) -> Entry:
        name, link, kind = _text(fields[0]), _text(fields[8]), fields[7]
        if fields[9] == _USTAR and fields[15][0]:
            name = _text(fields[15]) + b"/" + name
        name = pax.get(b"path", long.get(_LONG_NAME, name))
        link = pax.get(b"linkpath", long.get(_LONG_LINK, link))
        size = _pax_number(pax, b"size", fields[4])
        if kind in _FILES:
            kind = FOLDER if name.endswith(b"/") else FILE
        elif kind == _GNU_FOLDER:
            kind = FOLDER
        elif kind in _BODILESS:
            size = 0  # old tars give a hard link the size of its file
        elif kind != _SPARSE:
            raise refused(
                f"The layer has {shown(name)} of the kind {shown(kind)}, which is not known here."
            )
        self._left, self._padding, self._map = size, _padded(size) - size, None
        if kind == _SPARSE:
            kind = FILE
            self._map, size = old_header(header, self._sparse_block, _number)
        elif pax and kind == FILE:
            self._map, size, name = self._sparse_of_pax(pax, size, name)
        if self._map is not None:
            checked_map(self._map, size, self._left)
        for text in (name, link):
            if len(text) > _LONGEST_NAME or b"\0" in text:
                raise refused(f"The layer has a name that no file can have: {shown(text)}.")
        return Entry(
            name,
            kind,
            _number(fields[1]) & 0o7777,
            _pax_number(pax, b"uid", fields[2]),
            _pax_number(pax, b"gid", fields[3]),
            size if kind == FILE else 0,
            _time(pax, fields[5]),
            link,
            (_number(fields[13]), _number(fields[14]))
            if kind in (CHARACTER, BLOCK_DEVICE)
            else (0, 0),
            _xattrs(pax) if pax else {},
        )

    def _sparse_block(self) -> bytes:
        return self._stream.read(BLOCK)

    def _sparse_of_pax(
        self, pax: dict[bytes, bytes], size: int, name: bytes
    ) -> tuple[list[Segment] | None, int, bytes]:
        """The map of a sparse file in one of the three forms that GNU tar has for it in pax."""
        name = pax.get(b"GNU.sparse.name", name)
        if pax.get(b"GNU.sparse.major") == b"1":
            found = self._map_in_data()
            real = pax.get(b"GNU.sparse.realsize", b"")
        elif b"GNU.sparse.map" in pax:
            found = parse_numbers(pax[b"GNU.sparse.map"].split(b","))
            real = pax.get(b"GNU.sparse.size", b"")
        else:
            return None, size, name
        if not real.isdigit() or len(real) > 19:
            raise corrupt(f"The layer's archive does not say how large {shown(name)} is.")
        return found, int(real), name

    def _map_in_data(self) -> list[Segment]:
        """Lines of decimal numbers at the data's beginning, padded to whole blocks."""
        lines: list[bytes] = []
        wanted, rest = 1, b""
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise _cut()
            if len(rest) > _LONGEST_NUMBER:
                raise corrupt("The layer's archive has a sparse file whose map is damaged.")
            block = self._stream.read(BLOCK)
            if not block:
                raise _cut()
            self._left -= BLOCK
            *found, rest = (rest + block).split(b"\n")
            lines += found
            if lines and wanted == 1:
                count = lines[0]
                if not count.isdigit() or len(count) > 7 or int(count) > MOST_SEGMENTS:
                    raise corrupt("The layer's archive has a sparse file without a map.")
                wanted = 1 + 2 * int(count)
        return parse_numbers(lines[1:wanted])


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(field_: bytes) -> bytes:
    return field_.partition(b"\0")[0]


def _check_sum(header: bytes, stored: bytes) -> None:
    wanted = _number(stored)
    field_ = header[148:156]
    found = sum(header) - sum(field_) + 8 * 32
    if found == wanted:
        return
    # Some old tars added signed bytes.
    signed = sum(1 for byte in header if byte > 127) - sum(1 for byte in field_ if byte > 127)
    if found - 256 * signed != wanted:
        raise corrupt("The layer is not a tar archive, or is damaged.")


def _number(field_: bytes) -> int:
    """A number in octal digits, or in binary where the first bit says so."""
    if field_[0] & 0x80:
        bits = 8 * len(field_) - 1
        value = int.from_bytes(field_, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field_[0] & 0x40 else value
    text = field_.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8) if text.isdigit() else _not_a_number()
    except ValueError:
        return _not_a_number()


def _not_a_number() -> int:
    raise corrupt("The layer's archive has a header that is damaged.")


def _pax_number(pax: dict[bytes, bytes], key: bytes, otherwise: bytes) -> int:
    text = pax.get(key)
    if text is None:
        return _number(otherwise)
    if not text.isdigit() or len(text) > 19:
        return _not_a_number()
    return int(text)


def _time(pax: dict[bytes, bytes], otherwise: bytes) -> int:
    """Nanoseconds since 1970, as near as a file system can keep them."""
    text = pax.get(b"mtime")
    if text is None:
        seconds, fraction = _number(otherwise), 0
    else:
        whole, _, rest = text.partition(b".")
        digits = whole.removeprefix(b"-")
        if not digits.isdigit() or (rest and not rest.isdigit()) or len(digits) > 19:
            _not_a_number()
        seconds, fraction = int(whole), int(rest[:9].ljust(9, b"0"))
        if whole.startswith(b"-"):
            fraction = -fraction
    return min(max(seconds, _EARLIEST), _LATEST) * 10**9 + fraction


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form "LENGTH KEY=VALUE" with a newline, the length being that of all."""
    found: dict[bytes, bytes] = {}
    at = 0
    offsets: list[bytes] = []
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit():
            raise corrupt("The layer's archive has pax records that are damaged.")
        end = at + int(data[at:space])
        if not space < end <= len(data) or data[end - 1] != 0x0A:
            raise corrupt("The layer's archive has pax records that are damaged.")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise corrupt("The layer's archive has pax records that are damaged.")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            offsets.append(value)  # the oldest form repeats keys
        elif value:
            found[key] = value
        else:
            found.pop(key, None)
        at = end
    if offsets:
        found[b"GNU.sparse.map"] = b",".join(offsets)
    return found


def _xattrs(pax: dict[bytes, bytes]) -> dict[str, bytes]:
    return {
        key[len(_XATTR) :].decode("utf-8", "surrogateescape"): value
        for key, value in pax.items()
        if key.startswith(_XATTR)
    }
