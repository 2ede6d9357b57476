"""A bake as a picture that needs no other program: laid out here, from left to right.

Every box names its state, so that nobody needs the colours. No line crosses a box: where a node
needs another one of a column that is not the one before, the line has a place of its own, a lane,
in the columns between. Nodes that need the same share their lanes. Sizes are points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.domain.printable import display_width, printable
from neuro.flow.batch.layers import is_call, label
from neuro.flow.order import levels

# Of a font whose letters are all as wide: widths are known without the font.
SIZE, LETTER = 11.0, 0.6
_HEIGHT, _PAD, _GAP, _BETWEEN, _HEAD = 34.0, 8.0, 12.0, 46.0, 20.0
_SQUARE = 14.0
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
BROKEN = (WAITING, TaskStatus.SKIPPED, TaskStatus.CACHED)
_FRAME = "#fafafa"

Needs = tuple[str, ...]
Spell = Callable[[str], str]


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
    """A line from left to right; only the last piece of a way has a ``head``."""

    x1: float
    y1: float
    x2: float
    y2: float
    head: bool = True


@dataclass
class Picture:
    """Shapes, those behind first."""

    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)


def lay_out(
    batch: str,
    graphs: Graphs,
    statuses: Mapping[str, TaskStatus],
    times: Mapping[str, str],
    *,
    spell: Spell = printable,
    note: str = "",
) -> Picture:
    """Place all nodes of a bake; ``times`` are the durations to show with them.

    ``spell`` writes names with the letters that can be drawn; where it changed one, ``note`` stands
    below.
    """
    layout = _Layout(graphs, statuses, times, spell)
    picture = layout.picture
    title = layout.spelled(batch)
    picture.words.append(Words(_GAP, _GAP + SIZE, title, bold=True))
    grid = layout.measured("")
    layout.place(grid, _GAP, _GAP + _HEAD)
    bottom = _GAP + _HEAD + grid.height + _GAP
    right = max(_GAP + grid.width, _GAP + wide(title), _legend(layout, bottom))
    picture.height = bottom + _SQUARE + _GAP
    if layout.is_respelled and note:
        picture.words.append(Words(_GAP, picture.height + SIZE, note))
        picture.height += SIZE + _GAP
        right = max(right, _GAP + wide(note))
    picture.width = right + _GAP
    return picture


def wide(text: str) -> float:
    """The width of a string, as drawn."""
    return display_width(text) * SIZE * LETTER


def _legend(layout: _Layout, y: float) -> float:
    """A square and a word for each state that there is; where the row ends."""
    x = _GAP
    there = {layout.state(node) for node in layout.drawn}
    for state in (it for it in map(str, FILLS) if it in there):
        layout.picture.boxes.append(_box(x, y, _SQUARE, _SQUARE, FILLS[state], state))
        layout.picture.words.append(Words(x + 20.0, y + SIZE, state))
        x += 20.0 + wide(state) + 2 * _GAP
    return x - 2 * _GAP


def _box(x: float, y: float, width: float, height: float, fill: str, state: str) -> Box:
    heavy = 2.0 if state == TaskStatus.FAILED else 1.0
    return Box(x, y, width, height, fill, state in BROKEN, heavy)


@dataclass
class _Grid:
    """A graph in columns: how large it is, before it has its place.

    ``lanes`` are, for each column, what those nodes need whose lines pass there.
    """

    columns: list[list[str]]
    lanes: list[list[Needs]]
    sizes: dict[str, tuple[float, float]]
    inner: dict[str, _Grid]

    @property
    def widths(self) -> list[float]:
        return [max(self.sizes[node][0] for node in column) for column in self.columns]

    @property
    def width(self) -> float:
        return sum(self.widths) + _BETWEEN * max(len(self.columns) - 1, 0)

    def tall(self, number: int) -> float:
        column, lanes = self.columns[number], self.lanes[number]
        boxes = sum(self.sizes[node][1] for node in column)
        return boxes + _GAP * (len(column) + len(lanes) - 1)

    @property
    def height(self) -> float:
        return max(map(self.tall, range(len(self.columns))), default=0.0)


class _Layout:
    def __init__(
        self,
        graphs: Graphs,
        statuses: Mapping[str, TaskStatus],
        times: Mapping[str, str],
        spell: Spell,
    ) -> None:
        self.picture = Picture()
        self.drawn: list[str] = []
        self.is_respelled = False
        self._graphs = graphs
        self._statuses = statuses
        self._times = times
        self._spell = spell

    def spelled(self, text: str) -> str:
        """A name as it is drawn."""
        found = self._spell(text)
        self.is_respelled |= found != text
        return found

    def state(self, node: str) -> str:
        return str(self._statuses.get(node, WAITING))

    def _lines(self, prefix: str, node: str) -> tuple[str, str]:
        said = f"{self.state(node)} {self._times.get(node, '')}".rstrip()
        return self.spelled(label(prefix, node)), said

    def measured(self, prefix: str) -> _Grid:
        """A graph, with all that is called in it, in its columns."""
        nodes = self._graphs.get(prefix, {})
        columns = [*_columns(nodes)]
        grid = _Grid(columns, _lanes(nodes, columns), {}, {})
        for node in nodes:
            width = max(map(wide, self._lines(prefix, node))) + 2 * _PAD
            height = _HEIGHT
            if is_call(self._graphs, node):
                inner = grid.inner[node] = self.measured(node)
                width = max(width, inner.width + 2 * _PAD)
                height = _HEIGHT + 2.0 + inner.height + _PAD
            grid.sizes[node] = (width, height)
        return grid

    def place(self, grid: _Grid, x: float, y: float, prefix: str = "") -> None:
        """Draw a graph with its upper left corner there."""
        way = _Ways(self.picture.arrows)
        for number, column in enumerate(grid.columns):
            width = grid.widths[number]
            top = y + (grid.height - grid.tall(number)) / 2
            comes_from = {lane: way.height(lane, number) for lane in grid.lanes[number]}
            left = sorted(comes_from, key=comes_from.__getitem__)
            for node in column:
                height = grid.sizes[node][1]
                while left and comes_from[left[0]] <= top + height / 2:
                    way.lane(left.pop(0), number, x, x + width, top)
                    top += _GAP
                self._node(grid, prefix, node, x, top, width)
                needs = [it for it in self._graphs[prefix][node] if it in grid.sizes]
                way.node(node, needs, number, x, x + width, top + height / 2)
                top += height + _GAP
            for lane in left:
                way.lane(lane, number, x, x + width, top)
                top += _GAP
            x += width + _BETWEEN

    def _node(self, grid: _Grid, prefix: str, node: str, x: float, y: float, width: float) -> None:
        """All boxes of a column are as wide: no line passes beside a narrow one."""
        self.drawn.append(node)
        name, said = self._lines(prefix, node)
        state, inner = self.state(node), grid.inner.get(node)
        fill = FILLS[state] if inner is None else _FRAME
        self.picture.boxes.append(_box(x, y, width, grid.sizes[node][1], fill, state))
        self.picture.words.append(Words(x + _PAD, y + 14.0, name, bold=True))
        self.picture.words.append(Words(x + _PAD, y + 28.0, said))
        if inner is not None:
            self.place(inner, x + _PAD, y + _HEIGHT + 2.0, node)


def _columns(nodes: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    by_level: dict[int, list[str]] = {}
    for node, level in levels(nodes).items():
        by_level.setdefault(level, []).append(node)
    for level in sorted(by_level):
        column = by_level[level]
        for start in range(0, len(column), _MOST_IN_COLUMN):
            yield column[start : start + _MOST_IN_COLUMN]


def _lanes(
    nodes: Mapping[str, Sequence[str]], columns: Sequence[Sequence[str]]
) -> list[list[Needs]]:
    at = {node: number for number, column in enumerate(columns) for node in column}
    farthest: dict[Needs, int] = {}
    for node, of in nodes.items():
        needs = tuple(it for it in of if it in at)
        farthest[needs] = max(farthest.get(needs, 0), at[node])
    found: list[list[Needs]] = [[] for _ in columns]
    for needs, last in farthest.items():
        first = min((at[it] for it in needs), default=last)
        for number in range(first + 1, last):
            found[number].append(needs)
    return found


class _Ways:
    """Draws the lines of a graph, column after column: from boxes to lanes to boxes."""

    def __init__(self, arrows: list[Arrow]) -> None:
        self._arrows = arrows
        self._ends: dict[str, tuple[int, float, float]] = {}  # column, right side and middle
        self._lanes: dict[tuple[Needs, int], tuple[float, float]] = {}  # by what and column

    def height(self, needs: Needs, number: int) -> float:
        """Where the lines of a lane in this column come from."""
        if (needs, number - 1) in self._lanes:
            return self._lanes[needs, number - 1][1]
        known = [self._ends[it][2] for it in needs if it in self._ends]
        return sum(known) / len(known)

    def lane(self, needs: Needs, number: int, x: float, right: float, y: float) -> None:
        self._come(needs, number, x, y, head=False)
        self._arrows.append(Arrow(x, y, right, y, head=False))
        self._lanes[needs, number] = (right, y)

    def node(
        self, name: str, needs: Sequence[str], number: int, x: float, right: float, y: float
    ) -> None:
        self._come(tuple(needs), number, x, y, head=True)
        self._ends[name] = (number, right, y)

    def _come(self, needs: Needs, number: int, x: float, y: float, *, head: bool) -> None:
        """Lead the lines of the column before here: a lane's, and those of boxes."""
        if (needs, number - 1) in self._lanes:
            right, middle = self._lanes[needs, number - 1]
            self._arrows.append(Arrow(right, middle, x, y, head))
        for need in needs:
            if need in self._ends and self._ends[need][0] == number - 1:
                _, right, middle = self._ends[need]
                self._arrows.append(Arrow(right, middle, x, y, head))
