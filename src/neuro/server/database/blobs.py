"""Values that only the server reads, as bytes in a column: JSON, compressed where it is long."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# JSON never begins with this byte, which every zlib stream of the default window does.
_ZLIB = 0x78
_LONG = 1024
# Packing this much takes some milliseconds: not on the event loop, nor while others wait to write.
LARGE = 256 << 10

_encode = msgspec.json.Encoder().encode


def pack(value: Any) -> bytes:
    """A value as bytes. Graphs repeat the same ids: level 1 shrinks them to a tenth and less."""
    raw = _encode(value)
    return raw if len(raw) < _LONG else zlib.compress(raw, 1)


def text_size(texts: Mapping[str, str] | None) -> int:
    """About how many bytes these texts are."""
    return sum(len(name) + len(text) for name, text in (texts or {}).items())


async def pack_large(value: Any, size: int) -> bytes:
    """Like ``pack``, in a thread where it takes more than a moment; ``size`` is about its bytes."""
    return pack(value) if size < LARGE else await asyncio.to_thread(pack, value)


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
