"""The archive in a layer's blob: plain, gzip or zstd, told by its first bytes; gzip is made too.

gzip is read by isal, in half the time of zlib. zstd is the standard library's of Python 3.14, or
the same code for older ones. Both bound what one step may return, so a bomb costs no memory.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from neuro.engines.images.faults import ImageFault, corrupt
from neuro.engines.images.limits import Limits

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = (b"\x2a\x4d\x18", 0x50)  # of zstd: three bytes after one from 0x50 to 0x5f
_PACKED, _UNPACKED = 1 << 18, 1 << 20
_AHEAD = 8  # pieces that wait for who writes them
_AS_GZIP = 31  # of window bits
_LARGEST_WINDOW = 27  # 128 MiB, which is what zstd's own tools take unasked


class Decompressor(Protocol):
    needs_input: bool
    eof: bool

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


def compressor(level: int) -> Compressor:
    """Makes gzip, by isal; ``level`` is one of its own, 0 to 3."""
    isal = importlib.import_module("isal.isal_zlib")
    made: Compressor = isal.compressobj(level, isal.DEFLATED, _AS_GZIP)
    return made


def kind_of(start: bytes) -> str:
    """``gzip``, ``zstd`` or ``plain``, by the first four bytes of a blob."""
    if start.startswith(_GZIP):
        return "gzip"
    skippable = start[1:4] == _SKIPPABLE[0] and start[0] & 0xF0 == _SKIPPABLE[1]
    return "zstd" if start.startswith(_ZSTD) or skippable else "plain"


def decompressors(kind: str) -> Callable[[], Decompressor] | None:
    """How to make a decompressor; None where nothing is compressed."""
    if kind == "gzip":
        igzip = importlib.import_module("isal.igzip_lib")
        return lambda: igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP)
    if kind == "zstd":
        name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        zstd = importlib.import_module(name)
        options = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
        return lambda: zstd.ZstdDecompressor(options=options)
    return None


def pieces(blob: int, make: Callable[[], Decompressor] | None, limits: Limits) -> Iterator[bytes]:
    """The archive in the open file ``blob``, piece by piece.

    Raises ImageFault where it is damaged or larger than ``limits`` allow.
    """
    if make is None:
        return _plain(blob, limits)
    return _unpacked(blob, make, limits)


def _plain(blob: int, limits: Limits) -> Iterator[bytes]:
    size = 0
    while piece := os.read(blob, _UNPACKED):
        size += len(piece)
        limits.check_size(size)
        yield piece


def _unpacked(blob: int, make: Callable[[], Decompressor], limits: Limits) -> Iterator[bytes]:
    engine, packed, unpacked = make(), 0, 0
    given = b""
    begun = False  # whether the current member has had any input
    while True:
        if engine.eof:
            given = given or engine.unused_data
            engine, begun = make(), False
        if not given and (engine.needs_input or not begun):
            given = os.read(blob, _PACKED)
            packed += len(given)
            if not given:
                if begun:
                    raise corrupt("The layer ends too early: its download was cut.")
                return
        if not begun and not given.strip(b"\0"):
            given = b""  # padding behind the last member, as gzip allows
            continue
        try:
            piece = engine.decompress(given, _UNPACKED)
        except Exception as error:  # each library has an error of its own
            raise corrupt("The layer is damaged: it cannot be decompressed.") from error
        given, begun = b"", True
        unpacked += len(piece)
        limits.check_ratio(unpacked, packed)
        if piece:
            yield piece


class Ahead:
    """Pieces made and hashed by a thread of their own, a few ahead of who takes them."""

    def __init__(self, made: Iterator[bytes]) -> None:
        self.digest = ""
        self._made = made
        self._ready: deque[bytes] = deque()
        self._change = threading.Condition()
        self._fault: BaseException | None = None
        self._over = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        seen = hashlib.sha256()
        try:
            for piece in self._made:
                seen.update(piece)
                with self._change:
                    while len(self._ready) >= _AHEAD and not self._closed:
                        self._change.wait()
                    if self._closed:
                        return
                    self._ready.append(piece)
                    self._change.notify()
        except ImageFault as fault:
            self._fault = fault
        except BaseException as error:
            self._fault = error
        with self._change:
            self.digest = seen.hexdigest()
            self._over = True
            self._change.notify()

    def close(self) -> None:
        """Nobody takes any more: wait until the thread has noticed."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        """Every piece; then ``digest`` is known. Raises what making them raised."""
        while True:
            with self._change:
                while not self._ready and not self._over:
                    self._change.wait()
                if not self._ready:
                    if self._fault is not None:
                        raise self._fault
                    return
                piece = self._ready.popleft()
                self._change.notify()
            yield piece
