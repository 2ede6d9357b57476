"""The order in the graphs of a bake: what comes before what. Ids are as the wire has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from neuro.domain.bakes import Graphs

Needs = Mapping[str, Sequence[str]]


def levels(needs: Needs) -> dict[str, int]:
    """How many nodes come before each on the longest way to it; needs of others do not count.

    >>> levels({"a": [], "b": ["a"], "c": ["a", "b"]})
    {'a': 0, 'b': 1, 'c': 2}
    """
    missing = {node: sum(need in needs for need in of) for node, of in needs.items()}
    followers: dict[str, list[str]] = {node: [] for node in needs}
    for node, of in needs.items():
        for need in of:
            if need in followers:
                followers[need].append(node)
    found = {node: 0 for node, count in missing.items() if count == 0}
    ready = [*found]
    for node in ready:  # It grows while it is walked.
        for follower in followers[node]:
            found[follower] = max(found.get(follower, 0), found[node] + 1)
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    return {node: found.get(node, 0) for node in needs}


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
    """The nodes that are no calls, in their order."""
    return [node for node in in_order(graphs) if not is_call(graphs, node)]
