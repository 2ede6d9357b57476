"""Full ids: joined by dots as the wire has them, each is still of one node.

Ids that people write have no dots, but rows of matrices are named by their values: a row
``c-k-1.x`` and the task ``x`` in a call ``c-k-1`` beside it would share records, jobs and cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from neuro.flow.batch.model import FullId, Graph, Node, NodeKind, join_id
from neuro.flow.evaluate.batch.ground import Place
from neuro.flow.evaluate.sections import constant_text

if TYPE_CHECKING:
    from neuro.flow.syntax.problems import Report

Nodes = Mapping[FullId, Node]


class FullIds:
    """The nodes of graphs that are known, rows that outputs decide included.

    Which of two nodes is refused does not depend on which is known first, as far as a file tells
    their ids: those in a call are looked at before it opens. So a bake that goes on after a crash
    refuses the same one.
    """

    def __init__(self, contents: Callable[[Node], Nodes]) -> None:
        # What is in a call that is not open yet, as far as that is known.
        self._contents = contents
        # By their prefix.
        self._graphs: dict[FullId, Nodes] = {}
        # Nodes with dots in their ids, by the full id of the call that would be before the dot.
        self._dotted: dict[FullId, dict[FullId, Node]] = {}
        self._foreseen: dict[FullId, Nodes] = {}

    def open(self, graph: Graph, report: Report) -> None:
        """Take a graph, unless an id in it is another node's too: that is reported."""
        self._take(graph.prefix, graph.nodes, graph.nodes, report)

    def expand(self, group: Node, rows: Iterable[Node], report: Report) -> None:
        """Take the rows of a group, unless an id is another node's too: that is reported."""
        prefix = group.id[:-1]
        beside = {
            id: one for id, one in self._graphs.get(prefix, {}).items() if one.group != group.id
        }
        fresh: dict[FullId, Node] = {}
        twice = False
        for row in rows:
            if row.id in beside or row.id in fresh:
                report.add(f"The id '{row.id[-1]}' is there twice", group.at)
                twice = True
            fresh[row.id] = row
        if not twice:
            self._take(prefix, beside | fresh, fresh, report)

    def _take(self, prefix: FullId, whole: Nodes, fresh: Nodes, report: Report) -> None:
        before = self._graphs.get(prefix)
        self._graphs[prefix] = whole
        if self._check([*self._way(prefix), *fresh.values()], report):
            del self._graphs[prefix]
            if before is not None:
                self._graphs[prefix] = before
            return
        for node in fresh.values():
            for head in _heads(node.id) if "." in node.id[-1] else ():
                self._dotted.setdefault(head, {})[node.id] = node

    def _check(self, nodes: Iterable[Node], report: Report) -> bool:
        """Report full ids that nodes, or those in them, share with others beside them.

        Tells whether there are any: two nodes of one graph can share one only where one of them is
        a call, and the id of the other goes on after its id and a dot.
        """
        pairs: dict[tuple[FullId, FullId], tuple[Node, Node]] = {}
        for node in nodes:
            if "." in node.id[-1]:
                for head in _heads(node.id):
                    call = self._graphs.get(head[:-1], {}).get(head)
                    if call is not None and call.kind is NodeKind.CALL:
                        pairs[head, node.id] = call, node
            if node.kind is NodeKind.CALL:
                for other in self._dotted.get(node.id, {}).values():
                    pairs[node.id, other.id] = node, other
        found = False
        for call, dotted in pairs.values():
            rest = dotted.id[-1][len(call.id[-1]) + 1 :]
            shared = self._shared(call, rest, dotted)
            if shared is not None:
                _report(shared, call, dotted, report)
                found = True
        return found

    def _way(self, prefix: FullId) -> Iterator[Node]:
        """The calls around a graph."""
        for length in range(1, len(prefix) + 1):
            call = self._graphs.get(prefix[: length - 1], {}).get(prefix[:length])
            if call is not None:
                yield call

    def _shared(self, call: Node, name: str, other: Node) -> FullId | None:
        """A node in a call that has the full id of another, which is named so there, or of one in
        that."""
        # No id begins with anything else: of numbers, as in 1 and 1.5, nothing needs to be known.
        if not name[:1].isidentifier():
            return None
        for id, inner in self._inside(call).items():
            own = id[-1]
            shared = None
            if own == name:
                shared = id
            elif inner.kind is NodeKind.CALL and name.startswith(f"{own}."):
                shared = self._shared(inner, name[len(own) + 1 :], other)
            elif other.kind is NodeKind.CALL and own.startswith(f"{name}."):
                shared = self._shared(other, own[len(name) + 1 :], inner)
            if shared is not None:
                return shared
        return None

    def _inside(self, call: Node) -> Nodes:
        if call.id in self._graphs:
            return self._graphs[call.id]
        if call.id not in self._foreseen:
            self._foreseen[call.id] = self._contents(call)
        return self._foreseen[call.id]


def _heads(id: FullId) -> Iterator[FullId]:
    """What could be a call before the last part of a full id: that part up to each dot."""
    *prefix, name = id
    at = name.find(".")
    while at >= 0:
        yield (*prefix, name[:at])
        at = name.find(".", at + 1)


def _report(shared: FullId, call: Node, dotted: Node, report: Report) -> None:
    assert isinstance(dotted.source, Place)
    task = dotted.source.element.task
    base = constant_text(task.id) or "row"
    report.add(
        f"The id '{join_id(shared)}' is there twice: of a task in the call '{join_id(call.id)}', "
        f"and for the row '{dotted.id[-1]}' of a matrix",
        task.id.at if task.id is not None else task.at,
        f"Give the rows ids without dots, such as `id: {base}_${{{{ matrix.ORDINAL }}}}`.",
    )
