"""Graphs in order, their levels and their circles."""

from __future__ import annotations

from time import process_time

from hypothesis import given
from hypothesis import strategies as st

from neuro.flow.order import circles, in_order, levels

GRAPHS = st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9)


@given(GRAPHS)
def test_every_node_comes_after_those_that_it_needs(needs) -> None:
    in_circles = {node for circle in circles(needs) for node in circle}
    order = in_order(needs)
    assert sorted(order) == sorted(needs)
    if not in_circles:
        level = levels(needs)
        for node, its in needs.items():
            for need in its:
                if need in needs:
                    assert order.index(need) < order.index(node)
                    assert level[need] < level[node]


@given(GRAPHS)
def test_a_circle_is_made_of_needs(needs) -> None:
    seen: set[int] = set()
    for circle in circles(needs):
        assert not seen & set(circle)
        seen |= set(circle)
        for node, following in zip(circle, [*circle[1:], circle[0]], strict=True):
            assert following in needs[node]


def test_what_is_behind_a_circle_comes_last() -> None:
    needs = {"c": ["b"], "b": ["a"], "a": ["b"], "free": []}
    assert in_order(needs) == ["free", "c", "b", "a"]
    assert [*circles(needs)] == [["b", "a"]]


def test_shared_needs_are_counted_once() -> None:
    needs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    before: list[tuple[int, int]] = []
    for step in range(50):
        nodes = [(step, row) for row in range(400)]
        needs.update(dict.fromkeys(nodes, before))
        before = nodes
    start = process_time()
    assert [*circles(needs)] == []
    assert max(levels(needs).values()) == 49
    # A twentieth of this is usual; each row for itself would be eight million lines.
    assert process_time() - start < 5
