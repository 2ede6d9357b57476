"""A bake's graphs in lines of text: what comes after what, and what runs side by side.

    ● fetch → ● clean
    ├─ ● train-1 → ● test-1
    ├─ ● train-2 → ● test-2
    ● report

A node below at the same place comes after; branches run side by side. Where a graph cannot be
told like this, ``← a, b`` names what a node needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from neuro.domain.bakes import Graphs
from neuro.flow.batch.layers import Needs, is_call, label
from neuro.flow.order import levels

# How many names follow the arrow.
_NAMED = 4
# Of a long list of branches that is shortened: what of its beginning is shown, and what matters.
_FIRST, _LOUD, _LONG = 3, 6, 8
_DIM = "bright_black"


class Mark(NamedTuple):
    """How a node looks: a sign and its colour, something behind its name, what it counts as.

    ``loud`` ones are shown where others are left out.
    """

    sign: str = "○"
    fg: str | None = None
    note: str = ""
    kind: str = ""
    loud: bool = False


Paint = Callable[[str, str | None], str]
Piece = tuple[str, str | None]
Line = list[Piece]


@dataclass(frozen=True, slots=True)
class Series:
    """One after the other."""

    parts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """Side by side."""

    parts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Tangle:
    """Nodes in order whose needs have to be named."""

    needs: Mapping[str, tuple[str, ...]]


Shape = str | Series | Parallel | Tangle


def shape(needs: Needs) -> Shape:
    """Take a graph apart into series and branches, as far as it is made of them."""
    branches = _components(needs)
    if len(branches) > 1:
        return Parallel(tuple(_connected(branch) for branch in branches))
    return _connected(needs) if needs else Series(())


def _connected(needs: Needs) -> Shape:
    if len(needs) == 1:
        return next(iter(needs))
    steps = _steps(needs)
    if len(steps) > 1:
        return Series(tuple(shape(step) for step in steps))
    level = levels(needs)
    ordered = sorted(needs, key=level.__getitem__)
    return Tangle({node: tuple(it for it in needs[node] if it in needs) for node in ordered})


def _components(needs: Needs) -> list[dict[str, Sequence[str]]]:
    """The parts of a graph between which no line leads, in the order of their first nodes."""
    above: dict[str, str] = {node: node for node in needs}

    def root(node: str) -> str:
        while above[node] != node:
            above[node] = above[above[node]]
            node = above[node]
        return node

    for node, of in needs.items():
        for need in of:
            if need in above:
                above[root(need)] = root(node)
    found: dict[str, dict[str, Sequence[str]]] = {}
    for node, of in needs.items():
        found.setdefault(root(node), {})[node] = of
    return [*found.values()]


def _steps(needs: Needs) -> list[dict[str, Sequence[str]]]:
    """Cut a graph wherever all of what follows needs all of what was before."""
    level = levels(needs)
    by_level: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for node in needs:
        by_level[level[node]].append(node)
    next_level: dict[str, int] = {}
    for node, of in needs.items():
        for need in of:
            if need in level:
                next_level[need] = min(next_level.get(need, level[node]), level[node])
    steps: list[dict[str, Sequence[str]]] = [{}]
    last: set[str] = set()  # nodes that nothing before the cut follows
    for number, nodes in enumerate(by_level):
        last = {node for node in last if next_level.get(node, number) >= number}
        # A set is made only where it can pay.
        enough = all(len(needs[node]) >= len(last) for node in nodes)
        if number and enough and all(last <= set(needs[node]) for node in nodes):
            steps.append({})
        steps[-1].update((node, needs[node]) for node in nodes)
        last.update(nodes)
    if len(steps) == 1:
        return [dict(needs)]
    # Each step in the order of the file.
    at = {node: number for number, step in enumerate(steps) for node in step}
    ordered: list[dict[str, Sequence[str]]] = [{} for _ in steps]
    for node, of in needs.items():
        ordered[at[node]][node] = of
    return ordered


def sketch(
    graphs: Graphs,
    mark: Callable[[str], Mark],
    paint: Paint,
    *,
    width: int = 100,
    shorten: bool = True,
) -> list[str]:
    """The lines of all graphs; ``shorten`` leaves out the middle of long lists of branches."""
    drawn = _Sketch(graphs, mark, shorten=shorten)
    lines = drawn.graph("", width)
    return ["".join(paint(text, fg) for text, fg in line).rstrip() for line in lines]


class _Sketch:
    def __init__(self, graphs: Graphs, mark: Callable[[str], Mark], *, shorten: bool) -> None:
        self._graphs = graphs
        self._mark = mark
        self._shorten = shorten

    def graph(self, prefix: str, width: int) -> list[Line]:
        return [*self._shape(shape(self._graphs.get(prefix, {})), prefix, width, below=False)]

    def _shape(
        self, it: Shape, prefix: str, width: int, *, below: bool, above: bool = False
    ) -> Iterator[Line]:
        """``below``: something stands over this; ``above``: something follows under it."""
        if isinstance(it, str):
            yield from self._chain([it], prefix, width)
        elif isinstance(it, Series):
            yield from self._series(it, prefix, width, below=below, above=above)
        elif isinstance(it, Parallel):
            whole = [self._shape(part, prefix, width - 3, below=False) for part in it.parts]
            shown = self._shortened(it.parts, whole)
            yield from _branches(shown, below=below, above=above)
        else:
            rows = [
                self._tangled(node, needs, prefix, width - 3) for node, needs in it.needs.items()
            ]
            shown = self._shortened([*it.needs], rows)
            yield from _branches(shown, below=below, above=above)

    def _series(
        self, it: Series, prefix: str, width: int, *, below: bool, above: bool
    ) -> Iterator[Line]:
        chain: list[str] = []
        for number, part in enumerate(it.parts):
            if isinstance(part, str):
                chain.append(part)
                continue
            if chain:
                yield from self._chain(chain, prefix, width)
                chain = []
            elif number:
                yield [("↓", _DIM)]  # Or these branches would seem to be some more of those above.
            yield from self._shape(
                part,
                prefix,
                width,
                below=below or number > 0,
                above=above or number < len(it.parts) - 1,
            )
        if chain:
            yield from self._chain(chain, prefix, width)

    def _chain(self, nodes: Iterable[str], prefix: str, width: int) -> Iterator[Line]:
        """Nodes one after the other, in as few lines as there may be."""
        line: Line = []
        for node in nodes:
            piece = self._node(node, prefix)
            if line and _length(line) + 3 + _length(piece) > width:
                yield line
                line = [("→ ", _DIM)]
            elif line:
                line.append((" → ", _DIM))
            line += piece
            if is_call(self._graphs, node):
                yield line
                line = []
                for inner in self.graph(node, width - 2):
                    yield [("┊ ", _DIM), *inner]
        if line:
            yield line

    def _node(self, node: str, prefix: str) -> Line:
        mark = self._mark(node)
        line: Line = [(mark.sign, mark.fg), (" " + label(prefix, node), None)]
        if mark.note:
            line.append((" " + mark.note, _DIM))
        return line

    def _nodes(self, it: Shape) -> Iterator[str]:
        """The nodes of a branch, and what is in its calls."""
        if isinstance(it, str):
            yield it
            for inner in self._graphs.get(it, ()):
                yield from self._nodes(inner)
        else:
            for part in it.needs if isinstance(it, Tangle) else it.parts:
                yield from self._nodes(part)

    def _tangled(self, node: str, needs: Sequence[str], prefix: str, width: int) -> Iterator[Line]:
        first, *rest = self._chain([node], prefix, width)
        if needs:
            names = [label(prefix, need) for need in needs[:_NAMED]]
            more = f" and {len(needs) - _NAMED} more" if len(needs) > _NAMED else ""
            first = [*first, (f" ← {', '.join(names)}{more}", _DIM)]
        yield first
        yield from rest

    def _shortened(
        self, parts: Sequence[Shape], lines: Sequence[Iterator[Line]]
    ) -> list[list[Line]]:
        """The branches' lines, with a word about those in the middle of many."""
        if not self._shorten or len(parts) <= _LONG:
            return [[*branch] for branch in lines]
        marks = [[self._mark(node) for node in self._nodes(part)] for part in parts]
        loud = [number for number, of in enumerate(marks) if any(it.loud for it in of)][:_LOUD]
        shown = {*range(_FIRST), *loud, len(parts) - 1}
        rest = Counter(_common(of) for number, of in enumerate(marks) if number not in shown)
        if sum(rest.values()) < 2:
            return [[*branch] for branch in lines]
        kinds = ", ".join(f"{count} {kind}" for kind, count in rest.most_common() if kind)
        said = f"… {sum(rest.values())} more" + (f": {kinds}" if kinds else "")
        found = [[*branch] for number, branch in enumerate(lines) if number in shown]
        return [*found[:-1], [[(said, _DIM)]], found[-1]]


def _branches(branches: Sequence[Sequence[Line]], *, below: bool, above: bool) -> Iterator[Line]:
    for number, lines in enumerate(branches):
        is_first, is_last = number == 0 and not below, number == len(branches) - 1 and not above
        corner = "──" if is_first and is_last else "┌─" if is_first else "└─" if is_last else "├─"
        rest = "   " if is_last else "│  "
        for index, line in enumerate(lines):
            yield [(corner + " " if index == 0 else rest, _DIM), *line]


def _common(marks: Iterable[Mark]) -> str:
    """The mark that all nodes of a branch share; None where they differ."""
    kinds = {mark.kind for mark in marks}
    return kinds.pop() if len(kinds) == 1 else ""


def _length(line: Line) -> int:
    from neuro.domain.printable import display_width

    return sum(display_width(text) for text, _ in line)
