"""Full ids: joined by dots as the wire has them, each is still of one node.

Ids that people write have no dots, but rows of matrices are named by their values: a row
``c-k-1.x`` and the task ``x`` in a call ``c-k-1`` beside it would share records, jobs and cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.ground import Place
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.model import FullId, Node, NodeKind

if TYPE_CHECKING:
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.tree import Task, TaskCall

Nodes = Mapping[FullId, Node]


def with_rows(beside: Nodes, group: Node, rows: Iterable[Node], report: Report) -> Nodes:
    """The nodes of a graph with the rows of a group; an id of two nodes is reported."""
    whole = {id: node for id, node in beside.items() if node.group != group.id}
    for row in rows:
        if row.id in whole:
            report.add(f"The id '{row.id[-1]}' is there twice", group.at)
        whole[row.id] = row
    check_nodes(whole, report)
    return whole


def check_nodes(nodes: Nodes, report: Report) -> None:
    """Report the rows of a graph that look like a task in a call beside them."""
    calls = {id[-1] for id, node in nodes.items() if node.kind is NodeKind.CALL}
    check_dots(((id[-1], _task_of(node)) for id, node in nodes.items()), calls, report)


def check_dots(
    rows: Iterable[tuple[str, Task | TaskCall]], calls: Collection[str], report: Report
) -> None:
    """Report ids of rows that look like a task in one of the calls.

    Whether there is such a task may be known only when the call opens, so it does not matter.
    """
    for name, task in rows:
        for head, rest in _splits(name):
            # Ids of tasks begin with a letter: numbers, as in 1 and 1.5, are no matter.
            if head in calls and rest[:1].isidentifier():
                _report(name, task, head, report)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)


def _task_of(node: Node) -> Task | TaskCall:
    assert isinstance(node.source, Place)
    return node.source.element.task


def _report(row: str, task: Task | TaskCall, call: str, report: Report) -> None:
    report.add(
        f"The row '{row}' could not be told from a task in '{call}', which is a call",
        task.id.at if task.id is not None else task.at,
        "Give the rows ids without dots, such as"
        f" `id: {constant_text(task.id) or 'row'}_${{{{ matrix.ORDINAL }}}}`.",
    )
