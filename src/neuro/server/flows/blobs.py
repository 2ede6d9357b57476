"""Values that only the server reads, as bytes in a column: JSON, compressed where it is long."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# JSON never begins with this byte, which every zlib stream of the default window does.
_ZLIB = 0x78
_LONG = 1024

_encode = msgspec.json.Encoder().encode


def pack(value: Any) -> bytes:
    """A value as bytes. Graphs repeat the same ids: level 1 shrinks them to a tenth and less."""
    raw = _encode(value)
    return raw if len(raw) < _LONG else zlib.compress(raw, 1)


def unpack(blob: bytes, kind: type[T]) -> T:
    """The value of packed bytes."""
    return msgspec.json.decode(_raw(blob), type=kind)


def unread(blob: bytes) -> msgspec.Raw:
    """The JSON of packed bytes, to be passed on as it is. Raises as ``unpack``."""
    raw = _raw(blob)
    if raw is blob:
        # A compressed value has a sum that was checked just now; this is short.
        msgspec.json.decode(raw)
    return msgspec.Raw(raw)


def _raw(blob: bytes) -> bytes:
    return zlib.decompress(blob) if blob[0] == _ZLIB else blob
