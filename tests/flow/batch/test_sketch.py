from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.bakes import Graphs
from neuro.flow.batch.layers import in_order, tasks_in_order
from neuro.flow.batch.sketch import Mark, Parallel, Series, Shape, shape, sketch
from neuro.flow.order import levels

Pairs = set[tuple[str, str]]


def drawn(graphs: Graphs, *, width: int = 100, shorten: bool = True) -> str:
    def mark(node: str) -> Mark:
        loud = node.endswith("loud")
        return Mark("●" if loud else "○", kind="running" if loud else "waiting", loud=loud)

    lines = sketch(graphs, mark, lambda text, _: text, width=width, shorten=shorten)
    return "\n".join(["", *lines, ""])


def test_branches_and_what_follows_them() -> None:
    rows = ["train-lr-0.1", "train-lr-0.2"]
    graph = {
        "fetch": [],
        "clean": ["fetch"],
        **{row: ["clean"] for row in rows},
        "test-0.1": rows[:1],
        "test-0.2": rows[1:],
        "report": ["test-0.1", "test-0.2"],
        "post-fetch": ["fetch", "report"],
    }

    assert (
        drawn({"": graph})
        == """
○ fetch → ○ clean
├─ ○ train-lr-0.1 → ○ test-0.1
├─ ○ train-lr-0.2 → ○ test-0.2
○ report → ○ post-fetch
"""
    )


def test_what_stands_alone_has_a_corner_of_its_own() -> None:
    assert (
        drawn({"": {"x": [], "y": [], "z": ["x", "y"], "w": []}})
        == """
┌─ ┌─ ○ x
│  ├─ ○ y
│  ○ z
└─ ○ w
"""
    )


def test_a_call_is_followed_by_what_is_in_it() -> None:
    graphs = {
        "": {"a": [], "fit": ["a"], "b": ["fit"]},
        "fit": {"fit.in": [], "fit.sub": ["fit.in"], "fit.out": ["fit.sub"]},
        "fit.sub": {"fit.sub.x-0.5": [], "fit.sub.y": []},
        "empty": {},
    }

    assert (
        drawn(graphs)
        == """
○ a → ○ fit
┊ ○ in → ○ sub
┊ ┊ ┌─ ○ x-0.5
┊ ┊ └─ ○ y
┊ ○ out
○ b
"""
    )
    assert [*in_order(graphs)] == [
        "a", "fit", "fit.in", "fit.sub", "fit.sub.x-0.5", "fit.sub.y", "fit.out", "b",
    ]  # fmt: skip
    assert tasks_in_order(graphs) == ["a", "fit.in", "fit.sub.x-0.5", "fit.sub.y", "fit.out", "b"]


def test_needs_are_named_where_there_are_no_branches() -> None:
    graph = {"a": [], "b": [], "c": ["a"], "d": ["a", "b"], "e": ["c", "d"]}

    assert (
        drawn({"": graph})
        == """
┌─ ○ a
├─ ○ b
├─ ○ c ← a
├─ ○ d ← a, b
○ e
"""
    )


def test_branches_after_branches_are_told_apart() -> None:
    graph = {"a": [], "b": [], "c": ["a", "b"], "d": ["a", "b"]}

    assert (
        drawn({"": graph})
        == """
┌─ ○ a
├─ ○ b
↓
├─ ○ c
└─ ○ d
"""
    )


def test_a_long_line_is_broken() -> None:
    graph: dict[str, list[str]] = {f"task_{n}": [f"task_{n - 1}"] if n else [] for n in range(5)}

    assert (
        drawn({"": graph}, width=24)
        == """
○ task_0 → ○ task_1
→ ○ task_2 → ○ task_3
→ ○ task_4
"""
    )


def test_of_many_branches_those_that_matter_are_shown() -> None:
    graph: dict[str, list[str]] = {f"t{n}": [] for n in range(20)}
    graph = {**graph, "t-loud": [], "last": []}

    assert (
        drawn({"": graph})
        == """
┌─ ○ t0
├─ ○ t1
├─ ○ t2
├─ ● t-loud
├─ … 17 more: 17 waiting
└─ ○ last
"""
    )
    assert drawn({"": graph}, shorten=False).count("○") == 21


def test_branches_of_several_nodes_are_shortened_like_others() -> None:
    rows = range(20)
    chains = {f"a{n}": [] for n in rows} | {f"b{n}": [f"a{n}"] for n in rows}
    chains["b7"] = ["a7", "a7-loud"]
    chains["a7-loud"] = []

    assert (
        drawn({"": chains})
        == """
┌─ ○ a0 → ○ b0
├─ ○ a1 → ○ b1
├─ ○ a2 → ○ b2
├─ ┌─ ○ a7
│  ├─ ● a7-loud
│  ○ b7
├─ … 15 more: 15 waiting
└─ ○ a19 → ○ b19
"""
    )

    calls = {f"c{n}": [] for n in rows}
    inner = {call: {f"{call}.x": [], f"{call}.y": []} for call in calls}
    inner["c9"] = {"c9.x": [], "c9.loud": []}
    assert (
        drawn({"": calls, **inner})
        == """
┌─ ○ c0
│  ┊ ┌─ ○ x
│  ┊ └─ ○ y
├─ ○ c1
│  ┊ ┌─ ○ x
│  ┊ └─ ○ y
├─ ○ c2
│  ┊ ┌─ ○ x
│  ┊ └─ ○ y
├─ ○ c9
│  ┊ ┌─ ○ x
│  ┊ └─ ● loud
├─ … 15 more: 15 waiting
└─ ○ c19
   ┊ ┌─ ○ x
   ┊ └─ ○ y
"""
    )


def test_nothing_at_all_and_a_circle_are_no_reason_to_stop() -> None:
    assert drawn({"": {}}) == "\n"
    assert drawn({"": {"a": ["b"], "b": ["a"], "c": []}}).count("○") == 3
    assert levels({"a": ["b"], "b": ["a"], "c": []})["c"] == 0


def before(it: Shape) -> tuple[list[str], Pairs]:
    """The nodes of a shape, and which it says come before which, others between them or not."""
    if isinstance(it, str):
        return [it], set()
    if isinstance(it, Series | Parallel):
        inner = [before(part) for part in it.parts]
        pairs = {pair for _, more in inner for pair in more}
        if isinstance(it, Series):
            for number, (first, _) in enumerate(inner):
                for later, _ in inner[number + 1 :]:
                    pairs |= set(product(first, later))
        return [node for nodes, _ in inner for node in nodes], pairs
    return [*it.needs], closed({node: [*needs] for node, needs in it.needs.items()})


def closed(graph: dict[str, list[str]]) -> Pairs:
    behind: dict[str, set[str]] = {}
    for node in sorted(graph, key=levels(graph).__getitem__):
        behind[node] = {it for need in graph[node] for it in (need, *behind[need])}
    return {(need, node) for node, needs in behind.items() for need in needs}


@st.composite
def graphs_of_tasks(draw: st.DrawFn) -> dict[str, list[str]]:
    count = draw(st.integers(1, 9))
    found: dict[str, list[str]] = {}
    for number in range(count):
        earlier = [*found]
        found[f"t{number}"] = draw(
            st.just(earlier) | st.lists(st.sampled_from(earlier), unique=True)
            if earlier
            else st.just([])
        )
    return dict(draw(st.permutations([*found.items()])))


@given(graphs_of_tasks())
def test_a_shape_says_exactly_what_comes_before_what(graph: dict[str, list[str]]) -> None:
    nodes, pairs = before(shape(graph))

    assert sorted(nodes) == sorted(graph)
    assert pairs == closed(graph)


def test_a_large_graph_is_drawn_at_once() -> None:
    rows = [[f"l{layer}-{row}" for row in range(250)] for layer in range(20)]
    graph = {
        node: rows[layer - 1] if layer else [] for layer, nodes in enumerate(rows) for node in nodes
    }

    assert len(drawn({"": graph}).splitlines()) == 20 * 5 + 19 + 1
