"""The graph of a batch's tasks, as far as it is known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.matrix import auto_id, reads, row_id, rows_of
from neuro.flow.evaluate.values import Values
from neuro.flow.expressions.evaluator import EvaluationError, Scope, evaluate
from neuro.flow.syntax.problems import Report, nearest

if TYPE_CHECKING:
    from neuro.flow.evaluate.batch.matrix import Row
    from neuro.flow.syntax.source import Position
    from neuro.flow.syntax.tree import Matrix, Task, TaskCall
    from neuro.flow.syntax.types import Value


@dataclass(frozen=True, slots=True)
class Need:
    """An id in `needs`, and where it stands there."""

    id: str
    level: str
    at: Position


@dataclass(slots=True)
class Element:
    """What is known of an element of `tasks`."""

    number: int
    task: Task | TaskCall
    # None where only outputs of other tasks, parameters or the like decide.
    rows: Sequence[Row] | None
    # The real ids of the rows; None where they are not known.
    ids: Sequence[str] | None = None
    # The id that stands for all rows of a matrix.
    group: str | None = None
    # Of each row; None where they are not known. Without `needs:` there are none here.
    needs: Sequence[Sequence[Need] | None] = ()
    # Its node, which the nodes of the rows follow.
    node: int = 0

    @property
    def has_row_nodes(self) -> bool:
        return self.rows is not None and self.task.strategy is not None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        if self.group is not None:
            return self.group
        if self.ids is not None and len(self.ids) == 1:
            return self.ids[0]
        return f"task-{self.number}"


@dataclass(frozen=True, slots=True)
class Edge:
    """From a node to one that it waits for. Without a need it is the default one."""

    target: int
    at: Position | None = None


@dataclass(slots=True)
class Outline:
    """The elements, and a graph whose nodes are their rows; an element waits for its rows."""

    elements: list[Element]
    # By real id, and by the id of a group: the node.
    nodes: dict[str, int] = field(default_factory=dict)
    # Whether there are ids that are not known.
    open: bool = False
    owners: list[int] = field(default_factory=list)
    edges: list[list[Edge]] = field(default_factory=list)
    # Every node after those that it waits for, as far as there are no circles.
    order: list[int] = field(default_factory=list)

    def owner(self, node: int) -> Element:
        """The element that a node is of."""
        return self.elements[self.owners[node]]

    def name(self, node: int) -> str:
        """What to call a node in a message."""
        element = self.owner(node)
        if node > element.node and element.group is None and element.ids is not None:
            return element.ids[node - element.node - 1]
        return element.name


def outline(tasks: Sequence[Task | TaskCall], report: Report) -> Outline:
    """Find out what the tasks are and what they need.

    Reports matrices that are too large, ids that are there twice, needs of no task, and circles.
    With any id that is not known, every unknown need may be of that id.
    """
    found = Outline([])
    for number, task in enumerate(tasks, start=1):
        found.elements.append(_element(number, task, report))
    _number(found, report)
    for before, element in zip([None, *found.elements], found.elements, strict=False):
        _connect(found, element, before, report)
    _order(found, report)
    return found


def matrix_keys(matrix: Matrix | None) -> tuple[str, ...]:
    """The keys that rows have: without lists of values, those of the rows to include."""
    if matrix is None:
        return ()
    names = tuple(name for name, values in matrix.products.items() if values.parts)
    return names if names or not matrix.include else tuple(matrix.include[0].values)


def _element(number: int, task: Task | TaskCall, report: Report) -> Element:
    matrix = task.strategy.matrix if task.strategy is not None else None
    rows: Sequence[Row] | None = ({},)
    if matrix is not None:
        rows = _rows(matrix, number, report)
    element = Element(number, task, rows)
    keys = matrix_keys(matrix)
    _identify(element, keys, report)
    if task.needs is not None:
        constant = all(part.template is None for part, _ in task.needs.parts)
        if constant:
            needs = [Need(str(part.constant), level, part.at) for part, level in task.needs.parts]
            element.needs = [needs] * (len(rows) if rows is not None else 1)
        elif rows is None:
            element.needs = [None]
            for part, _ in task.needs.parts:
                if reads(part, "matrix") and is_late(task):
                    report.add(
                        "What a task needs cannot depend on a matrix that outputs decide", part.at
                    )
        else:
            element.needs = [_needs_of(task, row, report) for row in rows]
    return element


# Rows


def _rows(matrix: Matrix, number: int, report: Report) -> Sequence[Row] | None:
    """The rows of a matrix; None where they are not known, or too many."""
    scratch = Report()
    rows = rows_of(matrix, number, Values(Scope({}), scratch), scratch)
    for problem in scratch.problems:
        # What an expression reads is not known here: whether it may is checked with all names.
        if problem.at == matrix.at:
            report.add(problem.message, problem.at, problem.hint)
    return rows


def _value(value: Value, names: Mapping[str, object]) -> tuple[bool, object]:
    """Whether a value is known already, and what it is."""
    if value.template is None:
        return True, value.constant
    try:
        found = evaluate(value.template, Scope(names))
    except EvaluationError:
        # What is wrong with it, if anything is, tells its evaluation or the check of its names.
        return False, None
    return True, found


# Ids and needs


def _identify(element: Element, keys: Sequence[str], report: Report) -> None:
    """Find the real ids of an element's rows."""
    own = element.task.id
    if own is None:
        if element.rows is not None:
            element.ids = [auto_id(element.number, row) for row in element.rows]
    elif own.template is None:
        _identify_rows(element, str(own.constant), keys)
    elif keys and not reads(own, "matrix"):
        known, name = _id(own, {}, report)
        if known:
            _identify_rows(element, name, keys)
    elif element.rows is not None:
        found = [_id(own, {"matrix": row}, report) for row in element.rows]
        if all(known for known, _ in found):
            ids = [name for _, name in found]
            if len(ids) > 1 and len(set(ids)) == 1:
                _identify_rows(element, ids[0], keys)
            else:
                element.ids = ids


def _identify_rows(element: Element, name: str, keys: Sequence[str]) -> None:
    """A matrix whose rows have no ids of their own: the id is the group's."""
    if not keys:
        element.ids = [name]
        return
    element.group = name
    if element.rows is not None:
        element.ids = [row_id(name, row) for row in element.rows]


def _id(value: Value, names: Mapping[str, object], report: Report) -> tuple[bool, str]:
    """An id that an expression makes; whether it is known."""
    known, found = _value(value, names)
    if not known:
        return False, ""
    try:
        return True, str(value.type.convert(found))
    except ValueError as error:
        report.add(str(error), value.at, getattr(error, "hint", None))
        return False, ""


def _needs_of(task: Task | TaskCall, row: Row, report: Report) -> list[Need] | None:
    needs = []
    for part, level in task.needs.parts if task.needs is not None else ():
        if part.template is None:
            needs.append(Need(str(part.constant), level, part.at))
            continue
        known, name = _id(part, {"matrix": row}, report)
        if not known:
            return None
        needs.append(Need(name, level, part.at))
    return needs


# The graph


def _number(found: Outline, report: Report) -> None:
    """Give nodes to elements and to their rows, and learn who has which id."""
    lines: dict[str, Position] = {}
    for index, element in enumerate(found.elements):
        element.node = node = len(found.owners)
        inner = len(element.rows) if element.has_row_nodes and element.rows is not None else 0
        found.owners.extend([index] * (1 + inner))
        if element.ids is None and element.group is None and not is_late(element.task):
            found.open = True
        if element.group is not None:
            _claim(found, lines, element.group, node, element, report)
        for row, name in enumerate(element.ids or ()):
            _claim(found, lines, name, node + (1 + row if inner else 0), element, report)
    found.edges = [[] for _ in found.owners]


def is_late(task: Task | TaskCall) -> bool:
    """Whether outputs decide on the rows: then nobody can need one of them by its id."""
    matrix = task.strategy.matrix if task.strategy is not None else None
    if matrix is None:
        return False
    lists = (part for values in matrix.products.values() for part in values.parts)
    rows = (value for row in (*matrix.include, *matrix.exclude) for value in row.values.values())
    return any(reads(value, "needs") for value in (*lists, *rows))


def _claim(
    found: Outline,
    lines: dict[str, Position],
    name: str,
    node: int,
    element: Element,
    report: Report,
) -> None:
    at = element.task.id.at if element.task.id is not None else element.task.at
    first = lines.setdefault(name, at)
    if name not in found.nodes:
        found.nodes[name] = node
    elif found.owners[found.nodes[name]] == found.owners[node]:
        report.add(
            f"Two rows of the matrix have the id '{name}'",
            at,
            "Let the id tell them apart: ${{ matrix.ORDINAL }} is each row's number.",
        )
    else:
        report.add(
            f"The id '{name}' is there twice",
            at,
            f"The first one is the task at line {first.line}.",
        )


def _connect(found: Outline, element: Element, before: Element | None, report: Report) -> None:
    """Add the edges of an element and its rows."""
    node = element.node
    if not element.has_row_nodes:
        found.edges[node] = _edges(found, element, 0, before, report)
        return
    for row in range(len(element.rows or ())):
        found.edges[node].append(Edge(node + 1 + row))
        same = row and (element.task.needs is None or element.needs[row] is element.needs[row - 1])
        found.edges[node + 1 + row] = (
            found.edges[node + row] if same else _edges(found, element, row, before, report)
        )


def _edges(
    found: Outline, element: Element, row: int, before: Element | None, report: Report
) -> list[Edge]:
    if element.task.needs is None:
        return [Edge(before.node)] if before is not None else []
    edges = []
    for need in element.needs[row] or ():
        target = found.nodes.get(need.id)
        if target is not None:
            edges.append(Edge(target, need.at))
        elif not found.open:
            _report_unknown(found, element, need, report)
    return edges


def _report_unknown(found: Outline, element: Element, need: Need, report: Report) -> None:
    known = [name for name in found.nodes if name.isidentifier()]
    subject = "The task" if element.task.id is None else f"Task {element.name}"
    hint = nearest(need.id, known)
    if hint is None and known:
        hint = f"There are: {', '.join(sorted(known))}."
    report.add(f"{subject} needs unknown task {need.id}", need.at, hint)


def _order(found: Outline, report: Report) -> None:
    """Walk depth first, with the way here kept: what is on the way closes a circle."""
    done = bytearray(len(found.edges))
    on_way = bytearray(len(found.edges))
    for start in range(len(found.edges)):
        if done[start]:
            continue
        way = [start]
        on_way[start] = 1
        stack = [iter(found.edges[start])]
        while stack:
            edge = next(stack[-1], None)
            if edge is None:
                stack.pop()
                node = way.pop()
                on_way[node] = 0
                done[node] = 1
                found.order.append(node)
            elif on_way[edge.target]:
                _report_circle(found, way[way.index(edge.target) :], edge, report)
            elif not done[edge.target]:
                way.append(edge.target)
                on_way[edge.target] = 1
                stack.append(iter(found.edges[edge.target]))


def _report_circle(found: Outline, way: list[int], closing: Edge, report: Report) -> None:
    names: list[str] = []
    for node in [*way, closing.target]:
        name = found.name(node)
        if not names or names[-1] != name:
            names.append(name)
    if len(names) == 1:
        names *= 2
    at = closing.at
    hint = None
    if at is None:
        # A default need, or a group's rows, closes it: the need before tells the place.
        edges = [
            edge
            for node, following in zip(way, [*way[1:], closing.target], strict=True)
            for edge in found.edges[node]
            if edge.target == following and edge.at is not None
        ]
        at = edges[-1].at if edges else None
        hint = (
            "A task without `needs:` waits for the one before it: write `needs: []` to change it."
        )
    report.add(f"Tasks need each other in a circle: {' -> '.join(names)}", at, hint)
