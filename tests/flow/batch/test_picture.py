"""Pictures of bakes that need no other program."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations

import pytest

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.flow.batch.picture import SIZE, Arrow, Box, Picture, lay_out, wide
from neuro.flow.batch.picture_files import NOTE, latin, pdf, svg

GRAPHS: Graphs = {
    "": {
        "fetch": [],
        "fit": ["fetch"],
        **{f"t-{n}": ["fetch"] for n in range(40)},
        "end": ["fit"],
        "report": ["fetch", "end", *(f"t-{n}" for n in range(40))],
    },
    "fit": {"fit.a <&>": [], "fit.b": ["fit.a <&>"]},
}
STATUSES = {
    "fetch": TaskStatus.CACHED,
    "fit": TaskStatus.FAILED,
    "fit.a <&>": TaskStatus.SUCCEEDED,
    "fit.b": TaskStatus.FAILED,
    **{f"t-{n}": TaskStatus.RUNNING for n in range(40)},
}
TIMES = {"fit.a <&>": "2.4s", "fit": "1m 3s"}


@pytest.fixture
def picture() -> Picture:
    return lay_out("sweep", GRAPHS, STATUSES, TIMES)


def test_states_and_durations_are_told_in_words_with_a_legend(picture: Picture) -> None:
    texts = [element.text for element in ET.fromstring(svg(picture)).iter() if element.text]
    for text in ("sweep", "a <&>", "succeeded 2.4s", "failed 1m 3s", "waiting", "running"):
        assert text in texts
    # In the legend each state stands alone, once more than in its boxes.
    assert texts.count("succeeded") == 1
    assert texts.count("cached") == 2
    assert texts.count("pending") == 0


def test_no_box_lies_over_another_but_around_it(picture: Picture) -> None:
    for a, b in combinations(picture.boxes, 2):
        apart = (
            a.x + a.width <= b.x
            or b.x + b.width <= a.x
            or a.y + a.height <= b.y
            or b.y + b.height <= a.y
        )
        around = (
            a.x < b.x
            and a.y < b.y
            and b.x + b.width < a.x + a.width
            and b.y + b.height < a.y + a.height
        )
        assert apart or around, (a, b)
    for box in picture.boxes:
        assert 0 < box.x < box.x + box.width < picture.width
        assert 0 < box.y < box.y + box.height < picture.height


def points(arrow: Arrow) -> Iterator[tuple[float, float]]:
    """Along the curve that both files draw."""
    middle = (arrow.x1 + arrow.x2) / 2
    for step in range(1, 20):
        t = step / 20
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
        yield (
            a * arrow.x1 + (b + c) * middle + d * arrow.x2,
            (a + b) * arrow.y1 + (c + d) * arrow.y2,
        )


def holds(box: Box, x: float, y: float) -> bool:
    return box.x < x < box.x + box.width and box.y < y < box.y + box.height


def test_no_line_crosses_a_box(picture: Picture) -> None:
    for arrow in picture.arrows:
        for box in picture.boxes:
            inside = {holds(box, *point) for point in points(arrow)}
            assert len(inside) == 1, (arrow, box)
            # A line is in a box only where it joins two that are in it.
            assert inside == {holds(box, arrow.x1, arrow.y1)}
            assert inside == {holds(box, arrow.x2, arrow.y2)}


def test_every_need_is_a_way_along_lines_to_an_arrow(picture: Picture) -> None:
    """Read back from the drawing: what a box can be reached from is what it needs."""
    box_of = {
        words.text: box
        for words in picture.words
        if words.bold
        for box in picture.boxes
        if (words.x, words.y) == (box.x + 8.0, box.y + 14.0)
    }
    ends = {(box.x + box.width, box.y + box.height / 2): name for name, box in box_of.items()}
    comes: dict[tuple[float, float], set[tuple[float, float]]] = {}
    for arrow in picture.arrows:
        comes.setdefault((arrow.x2, arrow.y2), set()).add((arrow.x1, arrow.y1))

    def reached(place: tuple[float, float]) -> set[str]:
        found = set()
        for before in comes.get(place, ()):
            found |= {ends[before]} if before in ends else reached(before)
        return found

    for prefix, nodes in GRAPHS.items():
        for node, needs in nodes.items():
            box = box_of[node.removeprefix(f"{prefix}.")]
            names = {need.removeprefix(f"{prefix}.") for need in needs}
            assert reached((box.x, box.y + box.height / 2)) == names


def test_no_word_lies_over_another_or_leaves_its_box(picture: Picture) -> None:
    places = [
        (it.x, it.y - SIZE, it.x + wide(it.text), it.y + 2.0, it.text) for it in picture.words
    ]
    for a, b in combinations(places, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    for left, top, right, bottom, text in places:
        assert 0 < left < right < picture.width, text
        for box in picture.boxes:
            if holds(box, left, (top + bottom) / 2):
                assert right < box.x + box.width, text


NAMES: Graphs = {"": {"обучение": [], "訓練x": ["обучение"], "z-őr": ["訓練x"]}}


def test_letters_of_any_language_are_drawn_as_they_are_in_an_svg() -> None:
    picture = lay_out("пакет\x07", NAMES, {}, {})

    texts = [element.text for element in ET.fromstring(svg(picture)).iter() if element.text]

    assert {"обучение", "訓練x", "z-őr", "пакет\\x07"} <= {*texts}
    # Wide letters have room for themselves.
    assert wide("訓練x") == wide("12345")


def test_letters_that_a_pdf_has_not_are_spelled_and_it_says_so() -> None:
    document = pdf(lay_out("пакет", NAMES, {}, {}, spell=latin, note=NOTE))

    for said in (b"(paket)", b"(obuchenie)", rb"(\\u8a13\\u7df4x)", b"(z-or)", NOTE.encode()):
        assert said in document
    plain = pdf(lay_out("café", {"": {"a": []}}, {}, {}, spell=latin, note=NOTE))
    assert "(café)".encode("cp1252") in plain
    assert NOTE.encode() not in plain


def test_a_picture_that_is_larger_than_a_page_may_be_is_told_in_larger_units() -> None:
    chain: Graphs = {"": {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(200)}}

    document = pdf(lay_out("long", chain, {}, {}))

    (width, height, unit) = re.findall(rb"\[0 0 (\S+) (\S+)\] /UserUnit (\d+)", document)[0]
    assert int(unit) == 2
    assert float(height) < float(width) < 14400


def test_a_wide_matrix_is_set_in_columns(picture: Picture) -> None:
    assert picture.height < 40 * 46


def test_the_pdf_has_its_parts_where_it_says(picture: Picture) -> None:
    document = pdf(picture)

    assert document.startswith(b"%PDF-")
    start = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", document)[0])
    places = [int(it) for it in re.findall(rb"(\d{10}) 00000 n ", document[start:])]
    for number, place in enumerate(places, 1):
        assert document[place:].startswith(b"%d 0 obj\n" % number)
    length = int(re.findall(rb"/Length (\d+)", document)[0])
    stream = document.split(b"stream\n", 1)[1][:length]
    assert stream.endswith(b" ET")
    assert b"(succeeded 2.4s) Tj" in stream
