"""Which nodes are to be looked at next: those whose needs are all closed. Pure.

Nothing is looked for among all nodes: each node counts the needs that are still open, and nodes
that share their needs share the count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from neuro.flow.batch.items import Item, Join, Scope
from neuro.flow.batch.phases import Event, Phase
from neuro.flow.model import Level, Node


class Readiness:
    """The nodes of open graphs that are ready, in the order in which they became so."""

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()

    def add(self, scope: Scope, nodes: Iterable[Node]) -> list[Item]:
        """Add nodes to an open graph, which has all that they need, or is given it with them."""
        added: list[Item] = []
        for node in nodes:
            join = scope.joins.get(id(node.needs))
            if join is None:
                join = scope.joins[id(node.needs)] = Join(node.needs)
            item = Item(node, scope, join)
            scope.items[node.id] = item
            added.append(item)
        scope.unstarted += len(added)
        scope.unfinished += len(added)
        fresh: dict[int, Join] = {}
        for item in added:
            if not item.join.items:
                fresh[id(item.join)] = item.join
            item.join.items.append(item)
        for join in fresh.values():
            _count_open(join, scope)
        for item in added:
            if item.join.open == 0:
                self._put(item)
        return added

    def close(self, joins: list[Join]) -> None:
        """A need of these is closed; they are forgotten."""
        for join in joins:
            join.open -= 1
            if join.open == 0:
                for item in join.items:
                    self._put(item)
        joins.clear()

    def next(self) -> Item | None:
        """The first that is still ready."""
        while self._ready:
            item = self._ready.popleft()
            if item.phase is Phase.READY:
                return item
        return None

    def _put(self, item: Item) -> None:
        if item.phase is Phase.WAITING:
            item.pass_on(Event.NEEDS_CLOSED)
            self._ready.append(item)


def _count_open(join: Join, scope: Scope) -> None:
    for need, level in join.needs.items():
        other = scope.items[need]
        if level is Level.RUNNING and not other.started:
            other.after_start.append(join)
            join.open += 1
        elif level is Level.COMPLETED and other.outcome is None:
            other.after_end.append(join)
            join.open += 1
