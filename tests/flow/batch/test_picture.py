"""Pictures of bakes that need no other program."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.flow.batch.picture import Picture, lay_out, pdf, svg

GRAPHS: Graphs = {
    "": {"fetch": [], "fit": ["fetch"], **{f"t-{n}": ["fetch"] for n in range(40)}, "end": ["fit"]},
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
