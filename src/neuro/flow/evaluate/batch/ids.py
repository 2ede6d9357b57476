"""Full ids: joined by dots as the wire has them, each is still of one node.

Ids that people write have no dots, but rows of matrices are named by their values: a row
``c-k-1.x`` and the task ``x`` in a call ``c-k-1`` beside it would share records, jobs and cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.ground import place_of
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.model import FullId, Node, NodeKind

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.batch.ground import Element
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import Task, TaskCall

Nodes = Mapping[FullId, Node]


def with_rows(beside: Nodes, group: Node, rows: Iterable[Node], report: Report) -> Nodes:
    """The nodes of a graph with the rows of a group; an id of two nodes is reported."""
    whole = {id: node for id, node in beside.items() if node.group != group.id}
    for row in rows:
        if row.id in whole:
            first = place_of(whole[row.id]).element
            report_twice(row.id[-1], first, place_of(row).element, report)
        whole[row.id] = row
    check_nodes(whole, report)
    return whole


def report_twice(name: str, first: Element, again: Element, report: Report) -> None:
    """Report an id that another task, or another row of the same one, has already."""
    if first is again:
        report.add(
            f"Two rows of the matrix have the id '{name}'",
            _id_at(again.task),
            "Let the id tell them apart: ${{ matrix.ORDINAL }} is each row's number.",
        )
    else:
        report.add(
            f"The id '{name}' is there twice",
            _id_at(again.task),
            f"The first one is the task at line {_id_at(first.task).line}.",
        )


def _id_at(task: Task | TaskCall) -> Position:
    return task.id.at if task.id is not None else task.at


def check_nodes(nodes: Nodes, report: Report) -> None:
    """Report the rows of a graph that look like a task in a call beside them."""
    # Whether there is such a task may be known only when the call opens, so it does not matter.
    calls = {id[-1] for id, node in nodes.items() if node.kind is NodeKind.CALL}
    for id, node in nodes.items():
        for head, rest in _splits(id[-1]):
            # Ids of tasks begin with a letter: numbers, as in 1 and 1.5, do not matter.
            if head in calls and rest[:1].isidentifier():
                _report(id[-1], place_of(node).element.task, head, report)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)


def _report(row: str, task: Task | TaskCall, call: str, report: Report) -> None:
    report.add(
        f"The row '{row}' could not be told from a task in '{call}', which is a call",
        _id_at(task),
        "Give the rows ids without dots, such as"
        f" `id: {constant_text(task.id) or 'row'}_${{{{ matrix.ORDINAL }}}}`.",
    )
