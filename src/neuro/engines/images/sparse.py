"""Maps of sparse files in a tar: which parts of the file are in the archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuro.engines.images.faults import ImageFault, corrupt

Segment = tuple[int, int]  # where in the file, and how many bytes

MOST_SEGMENTS = 1 << 17
_IN_HEADER, _MAP, _MORE, _REAL_SIZE = 4, 386, 482, 483  # of GNU tar's old header
_IN_BLOCK, _MORE_IN_BLOCK = 21, 504
_NUMBER = 12


def old_header(
    header: bytes, next_block: Callable[[], bytes], number: Callable[[bytes], int]
) -> tuple[list[Segment], int]:
    """The map and the file's size that GNU tar's old header and the blocks after it tell.

    Raises ImageFault.
    """
    segments = _segments(header[_MAP:], _IN_HEADER, number)
    more = header[_MORE]
    while more:
        block = next_block()
        if not block or len(segments) > MOST_SEGMENTS:
            raise _damaged()
        segments += _segments(block, _IN_BLOCK, number)
        more = block[_MORE_IN_BLOCK]
    return segments, number(header[_REAL_SIZE : _REAL_SIZE + _NUMBER])


def _segments(table: bytes, count: int, number: Callable[[bytes], int]) -> list[Segment]:
    found = []
    for at in range(0, count * 2 * _NUMBER, 2 * _NUMBER):
        if not table[at]:
            break
        length = table[at + _NUMBER : at + 2 * _NUMBER]
        found.append((number(table[at : at + _NUMBER]), number(length)))
    return found


def parse_numbers(numbers: Sequence[bytes]) -> list[Segment]:
    """Pairs of decimal numbers. Raises ImageFault."""
    if len(numbers) > 2 * MOST_SEGMENTS:
        raise _damaged()
    if len(numbers) % 2 or any(not one.isdigit() or len(one) > 19 for one in numbers):
        raise _damaged()
    values = [int(one) for one in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def checked_map(segments: Sequence[Segment], size: int, stored: int) -> None:
    """Raises ImageFault unless segments are in order, within ``size``, and ``stored`` together."""
    at = 0
    for offset, length in segments:
        if offset < at or length < 0:
            raise _damaged()
        at = offset + length
    if at > size or sum(length for _, length in segments) != stored:
        raise _damaged()


def _damaged() -> ImageFault:
    return corrupt("The layer's archive has a sparse file whose map is damaged.")
