from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput
from neuro.domain.frames import FrameReader, Kind, encode_frame

FRAMES = st.lists(
    st.tuples(
        st.just(Kind.FILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.binary(max_size=200),
    ),
    max_size=5,
)  # fmt: skip


@given(FRAMES, st.integers(1, 50))
def test_what_is_sent_arrives_however_it_is_cut(
    frames: list[tuple[Kind, str, bytes]], size: int
) -> None:
    stream = b"".join(encode_frame(kind, path, data) for kind, path, data in frames)
    reader = FrameReader()

    read = [
        frame
        for start in range(0, len(stream), size)
        for frame in reader.feed(stream[start : start + size])
    ]

    assert [(frame.kind, frame.path, bytes(frame.data)) for frame in read] == frames


@given(st.integers(0, 30), st.integers(1, 255))
def test_a_byte_that_changed_on_the_way_is_found_out(place: int, change: int) -> None:
    stream = bytearray(encode_frame(Kind.FILE, "a/b", b"some bytes here")) + encode_frame(
        Kind.END, ""
    )
    place %= 30
    stream[place] ^= change
    reader = FrameReader()

    try:
        frames = reader.feed(bytes(stream))
    except InvalidInput:
        return
    # Kind and flags are not in the sum; a longer length waits for more.
    assert place < 8 or not frames
