"""A bake as a picture that needs no other program: laid out here, from left to right.

Every box names its state, so that nobody needs the colours. Sizes are points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.flow.batch.layers import is_call, label
from neuro.flow.order import levels

# Of a font whose letters are all as wide: widths are known without the font.
SIZE, LETTER = 11.0, 0.6
_HEIGHT, _PAD, _GAP, _BETWEEN, _HEAD = 34.0, 8.0, 12.0, 46.0, 20.0
# A matrix of more rows is set in several columns.
_MOST_IN_COLUMN = 16
WAITING = "waiting"

# Light enough for black text, and apart in brightness where a printer has no colours.
FILLS: Mapping[str, str] = {
    WAITING: "#ffffff",
    TaskStatus.UNKNOWN: "#eeeeee",
    TaskStatus.PENDING: "#d6ebf5",
    TaskStatus.RUNNING: "#8ec5e8",
    TaskStatus.SUCCEEDED: "#b7e4b0",
    TaskStatus.FAILED: "#f08a7a",
    TaskStatus.CANCELLED: "#f7c98b",
    TaskStatus.SKIPPED: "#e4e4e4",
    TaskStatus.CACHED: "#d9c3ea",
}
# Nothing ran in these: their borders are broken.
_BROKEN = (WAITING, TaskStatus.SKIPPED, TaskStatus.CACHED)


class Box(NamedTuple):
    """A rectangle; ``broken`` is how its border is drawn."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    broken: bool
    line: float = 1.0


class Words(NamedTuple):
    """A line of text, from the left end of its base line."""

    x: float
    y: float
    text: str
    bold: bool = False


class Arrow(NamedTuple):
    """From the right side of a box to the left side of another."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass
class Picture:
    """Shapes, those behind first."""

    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)


def lay_out(
    batch: str, graphs: Graphs, statuses: Mapping[str, TaskStatus], times: Mapping[str, str]
) -> Picture:
    """Place all nodes of a bake; ``times`` are what is said of how long each took."""
    layout = _Layout(graphs, statuses, times)
    picture = layout.picture
    picture.words.append(Words(_GAP, _GAP + SIZE, batch, bold=True))
    width, height = layout.graph("", _GAP, _GAP + _HEAD)
    bottom = _GAP + _HEAD + height + _GAP
    x = _GAP
    states = {str(statuses.get(node, WAITING)) for node in layout.places}
    for state in (it for it in map(str, FILLS) if it in states):
        picture.boxes.append(Box(x, bottom, 14.0, 14.0, FILLS[state], state in _BROKEN))
        picture.words.append(Words(x + 20.0, bottom + SIZE, state))
        x += 20.0 + _wide(state) + 2 * _GAP
    picture.width = max(width + 2 * _GAP, x, _wide(batch) + 2 * _GAP)
    picture.height = bottom + 14.0 + _GAP
    return picture


def _wide(text: str) -> float:
    return len(text) * SIZE * LETTER


class _Layout:
    def __init__(
        self, graphs: Graphs, statuses: Mapping[str, TaskStatus], times: Mapping[str, str]
    ) -> None:
        self.picture = Picture()
        self.places: dict[str, tuple[float, float, float, float]] = {}
        self._graphs = graphs
        self._statuses = statuses
        self._times = times

    def graph(self, prefix: str, x: float, y: float) -> tuple[float, float]:
        """Place a graph with its upper left corner there; its size."""
        nodes = self._graphs.get(prefix, {})
        left, tallest = x, 0.0
        for column in self._columns(prefix):
            widest, top = 0.0, y
            for node in column:
                width, height = self._node(prefix, node, left, top)
                widest, top = max(widest, width), top + height + _GAP
            left += widest + _BETWEEN
            tallest = max(tallest, top - _GAP - y)
        for node, needs in nodes.items():
            for need in needs:
                if need in self.places and node in self.places:
                    ax, ay, width, height = self.places[need]
                    bx, by, _, lower = self.places[node]
                    start = (ax + width, ay + height / 2)
                    self.picture.arrows.append(Arrow(*start, bx, by + lower / 2))
        return max(left - _BETWEEN - x, 0.0), tallest

    def _columns(self, prefix: str) -> Iterator[list[str]]:
        nodes = self._graphs.get(prefix, {})
        by_level: dict[int, list[str]] = {}
        for node, level in levels(nodes).items():
            by_level.setdefault(level, []).append(node)
        for level in sorted(by_level):
            column = by_level[level]
            for start in range(0, len(column), _MOST_IN_COLUMN):
                yield column[start : start + _MOST_IN_COLUMN]

    def _node(self, prefix: str, node: str, x: float, y: float) -> tuple[float, float]:
        name = label(prefix, node)
        state = str(self._statuses.get(node, WAITING))
        said = f"{state} {self._times.get(node, '')}".rstrip()
        width = max(_wide(name), _wide(said)) + 2 * _PAD
        height = _HEIGHT
        index = len(self.picture.boxes)
        if is_call(self._graphs, node):
            top = y + _HEIGHT + 2.0
            inner = self.graph(node, x + _PAD, top)
            width = max(width, inner[0] + 2 * _PAD)
            height = _HEIGHT + 2.0 + inner[1] + _PAD
        fill = "#fafafa" if is_call(self._graphs, node) else FILLS[state]
        heavy = 2.0 if state == TaskStatus.FAILED else 1.0
        # Behind what is in it.
        self.picture.boxes.insert(index, Box(x, y, width, height, fill, state in _BROKEN, heavy))
        self.picture.words.append(Words(x + _PAD, y + 14.0, name, bold=True))
        self.picture.words.append(Words(x + _PAD, y + 28.0, said))
        self.places[node] = (x, y, width, height)
        return width, height


def svg(picture: Picture) -> bytes:
    """The picture as SVG."""
    from xml.sax.saxutils import escape

    width, height = f"{picture.width:.0f}", f"{picture.height:.0f}"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="Courier, monospace" font-size="{SIZE:g}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for box in picture.boxes:
        dash = ' stroke-dasharray="4 3"' if box.broken else ""
        lines.append(
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
            f' height="{box.height:.1f}" rx="3" fill="{box.fill}" stroke="#333333"'
            f' stroke-width="{box.line:g}"{dash}/>'
        )
    for it in picture.arrows:
        middle = (it.x1 + it.x2) / 2
        lines.append(
            f'<path d="M{it.x1:.1f} {it.y1:.1f} C{middle:.1f} {it.y1:.1f} {middle:.1f}'
            f' {it.y2:.1f} {it.x2:.1f} {it.y2:.1f}" fill="none" stroke="#333333"/>'
            f'<path d="M{it.x2:.1f} {it.y2:.1f} l-6 -3 v6 z" fill="#333333"/>'
        )
    for words in picture.words:
        # Fonts differ a little: the text is made as wide as its place.
        weight = ' font-weight="bold"' if words.bold else ""
        lines.append(
            f'<text x="{words.x:.1f}" y="{words.y:.1f}" textLength="{_wide(words.text):.1f}"'
            f' xml:space="preserve"{weight}>{escape(words.text)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""]).encode()


def pdf(picture: Picture) -> bytes:
    """The picture as a PDF of one page; letters that its fonts do not have become `?`."""
    height = picture.height
    drawn = [b"0.2 G"]

    def put(text: str) -> None:
        drawn.append(text.encode("cp1252", "replace"))

    for box in picture.boxes:
        red, green, blue = (int(box.fill[at : at + 2], 16) / 255 for at in (1, 3, 5))
        put(f"{red:.3f} {green:.3f} {blue:.3f} rg {box.line:g} w")
        put("[4 3] 0 d" if box.broken else "[] 0 d")
        corner = f"{box.x:.1f} {height - box.y - box.height:.1f}"
        put(f"{corner} {box.width:.1f} {box.height:.1f} re B")
    put("1 w [] 0 d 0.2 g")
    for it in picture.arrows:
        middle, y1, y2 = (it.x1 + it.x2) / 2, height - it.y1, height - it.y2
        put(
            f"{it.x1:.1f} {y1:.1f} m {middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {it.x2:.1f}"
            f" {y2:.1f} c S {it.x2:.1f} {y2:.1f} m {it.x2 - 6:.1f} {y2 + 3:.1f} l"
            f" {it.x2 - 6:.1f} {y2 - 3:.1f} l f"
        )
    put("0 g")
    for words in picture.words:
        text = words.text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        font = "B" if words.bold else "R"
        put(f"BT /{font} {SIZE:g} Tf {words.x:.1f} {height - words.y:.1f} Td ({text}) Tj ET")
    stream = b"\n".join(drawn)
    fonts = " ".join(
        f"/{name} << /Type /Font /Subtype /Type1 /BaseFont /{face} /Encoding /WinAnsiEncoding >>"
        for name, face in (("R", "Courier"), ("B", "Courier-Bold"))
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {picture.width:.0f} {height:.0f}]"
        f" /Resources << /Font << {fonts} >> >> /Contents 4 0 R >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    whole = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(whole))
        whole += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return whole + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n"
        b"%%%%EOF\n" % (count, table, count, len(whole))
    )
