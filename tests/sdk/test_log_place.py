"""A reader of a log that comes back, wherever its connection broke off."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.client.log_place import LogPlace

STAMP = b"2026-11-29T18:18:13.%09dZ "


def answer(whole: bytes, start: int, *, timestamps: bool) -> bytes:
    """What the server sends from an offset on; a line's time tells where it begins."""
    if not timestamps:
        return whole[start:]
    lines = re.finditer(rb"[^\n]*\n|[^\n]+", whole)
    pieces = ((max(line.start(), start), line.end()) for line in lines if line.end() > start)
    return b"".join(STAMP % whole.rfind(b"\n", 0, a) + whole[a:b] for a, b in pieces)


@pytest.mark.parametrize("timestamps", [False, True])
@given(
    lines=st.lists(st.binary(max_size=5).map(lambda it: it.replace(b"\n", b" ")), max_size=8),
    breaks=st.lists(st.integers(0, 80), max_size=6),
    pieces=st.integers(1, 40),
)
def test_all_is_taken_once(timestamps: bool, lines: list[bytes], breaks: list[int], pieces: int):  # type: ignore[no-untyped-def]
    whole = b"\n".join(lines)
    place, taken = LogPlace(timestamps=timestamps), b""

    for size in [*breaks, 10**6]:
        assert place.begin(place.offset) == 0
        data = answer(whole, place.offset, timestamps=timestamps)[:size]
        for first in range(0, len(data), pieces):
            taken += place.take(data[first : first + pieces])

    assert taken == answer(whole, 0, timestamps=timestamps)


def test_what_is_gone_is_told_once() -> None:
    place = LogPlace()
    place.begin(0)
    place.take(b"12345")

    assert place.begin(9) == 4
    assert place.take(b"9") == b"9"
    assert place.begin(place.offset) == 0
    assert place.offset == 10


def test_an_answer_that_begins_within_what_was_taken_repeats_nothing() -> None:
    place = LogPlace(timestamps=True)
    place.begin(0)
    place.take(STAMP % 1 + b"a long line")

    assert place.offset == 0
    assert place.begin(4) == 0  # its beginning was dropped meanwhile
    assert place.take(STAMP % 2 + b"ng line and more\n" + STAMP % 3) == b" and more\n" + STAMP % 3
