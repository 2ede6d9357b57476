"""The order of a graph, and its circles.

Rows of a matrix share what they need: two hundred rows that all need two hundred others are 40,000
lines, which are counted once where the rows share the collection itself.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, TypeVar

N = TypeVar("N", bound=Hashable)


class _Shared(NamedTuple):
    """Stands between nodes and the collection that all of them need."""

    mark: int


def in_order(needs: Mapping[N, Collection[N]]) -> list[N]:
    """Every node after those that it needs; nodes in a circle, and behind one, come last.

    >>> in_order({"b": ["a"], "a": [], "c": ["d"], "d": ["c"]})
    ['a', 'b', 'c', 'd']
    """
    found = [node for nodes in _layers(needs) for node in nodes]
    if len(found) < len(needs):
        known = set(found)
        found += [node for node in needs if node not in known]
    return found


def levels(needs: Mapping[N, Collection[N]]) -> dict[N, int]:
    """How many nodes come before each on the longest way to it; needs of others do not count.

    >>> levels({"a": [], "b": ["a"], "c": ["a", "b"]})
    {'a': 0, 'b': 1, 'c': 2}
    """
    found = dict.fromkeys(needs, 0)
    for number, nodes in enumerate(_layers(needs)):
        found.update(dict.fromkeys(nodes, number))
    return found


def circles(needs: Mapping[N, Collection[N]]) -> Iterator[list[N]]:
    """The circles of a graph that have no node in common: each node needs the next one.

    >>> [*circles({"a": ["b"], "b": ["a"], "c": ["c"], "d": ["a"]})]
    [['a', 'b'], ['c']]
    """
    rest = dict(needs)
    while True:
        try:
            _sorter(rest).prepare()
        except CycleError as error:
            # graphlib goes from what is needed to what needs it, and ends where it began.
            found = [node for node in reversed(error.args[1]) if not isinstance(node, _Shared)]
            circle = found[:-1] if len(found) > 1 and found[0] == found[-1] else found
            first = next(node for node in needs if node in set(circle))
            at = circle.index(first)
            yield [*circle[at:], *circle[:at]]
            for node in circle:
                del rest[node]
        else:
            return


def _layers(needs: Mapping[N, Collection[N]]) -> Iterator[list[N]]:
    sorter = _sorter(needs)
    # Nodes outside of circles can be put in order all the same.
    with suppress(CycleError):
        sorter.prepare()
    while ready := sorter.get_ready():
        nodes = [node for node in ready if not isinstance(node, _Shared)]
        if nodes:
            yield nodes
        sorter.done(*ready)


def _sorter(needs: Mapping[N, Collection[N]]) -> TopologicalSorter[N | _Shared]:
    sorter: TopologicalSorter[N | _Shared] = TopologicalSorter()
    seen: set[int] = set()
    for node, its in needs.items():
        shared = _Shared(id(its))
        sorter.add(node, shared)
        if shared.mark not in seen:
            seen.add(shared.mark)
            sorter.add(shared, *(need for need in its if need in needs))
    return sorter
