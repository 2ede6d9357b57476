"""The order in the graphs of a bake: what comes before what. Ids are as the wire has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from neuro.domain.bakes import Graphs
from neuro.flow.order import levels

Needs = Mapping[str, Sequence[str]]


def is_call(graphs: Graphs, node: str) -> bool:
    """Whether a node stands for a graph of its own that has something in it."""
    return bool(graphs.get(node))


def label(prefix: str, node: str) -> str:
    """A node's own part of its id. Parts may hold dots: only the prefix tells where one begins.

    >>> label("fit", "fit.lr-0.1"), label("", "lr-0.1")
    ('lr-0.1', 'lr-0.1')
    """
    return node.removeprefix(f"{prefix}.") if prefix else node


def in_order(graphs: Graphs, prefix: str = "") -> Iterator[str]:
    """Every node, each after those that it needs, and a call before what is in it."""
    needs = graphs.get(prefix, {})
    level = levels(needs)
    for node in sorted(needs, key=level.__getitem__):
        yield node
        if is_call(graphs, node):
            yield from in_order(graphs, node)


def tasks_in_order(graphs: Graphs) -> list[str]:
    """The nodes that are not calls, in their order."""
    return [node for node in in_order(graphs) if not is_call(graphs, node)]
