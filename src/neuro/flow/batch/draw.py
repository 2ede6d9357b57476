"""A bake as a Graphviz drawing: the source that `dot` lays out. Equal graphs give equal sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.flow.batch.layers import is_call, label
from neuro.flow.batch.picture import BROKEN, FILLS
from neuro.flow.order import levels


def dot(
    batch: str,
    graphs: Graphs,
    statuses: Mapping[str, TaskStatus],
    times: Mapping[str, str],
) -> str:
    """Draw all graphs of a bake; nodes without a status have not begun.

    ``times`` are the durations to show with tasks.
    """
    return "\n".join([
        f"strict digraph {_quoted(batch)} {{",
        "  compound=true",
        '  fontname="Helvetica"',
        '  node [style=filled fillcolor=white shape=box fontname="Helvetica"]',
        *_nodes(graphs, statuses, times, "", "  "),
        *_edges(graphs, ""),
        "}",
        "",
    ])  # fmt: skip


def _nodes(
    graphs: Graphs,
    statuses: Mapping[str, TaskStatus],
    times: Mapping[str, str],
    prefix: str,
    indent: str,
) -> Iterator[str]:
    for node in graphs.get(prefix, {}):
        status = statuses.get(node)
        # The state stands there in words: colours alone are not told apart by everybody.
        name = _label(label(prefix, node), f"{status or ''} {times.get(node, '')}".strip())
        if is_call(graphs, node):
            yield f"{indent}subgraph {_quoted(f'cluster_{node}')} {{"
            yield f"{indent}  label={name}"
            yield f"{indent}  style=rounded"
            # Written in any case: a cluster takes what it is not given from the one around it.
            color, width = (FILLS[status], 2) if status is not None else ("black", 1)
            yield f'{indent}  color="{color}" penwidth={width}'
            yield from _nodes(graphs, statuses, times, node, indent + "  ")
            yield f"{indent}}}"
        else:
            look = f' fillcolor="{FILLS[status]}"' if status is not None else ""
            if status in BROKEN:
                look += ' style="filled,dashed"'
            yield f"{indent}{_quoted(node)} [label={name}{look}]"


def _edges(graphs: Graphs, prefix: str) -> Iterator[str]:
    nodes = graphs.get(prefix, {})
    for node, needs in nodes.items():
        for need in needs:
            yield _edge(graphs, need, node)
    for node in nodes:
        if is_call(graphs, node):
            yield from _edges(graphs, node)


def _edge(graphs: Graphs, tail: str, head: str) -> str:
    extra = []
    if is_call(graphs, head):
        extra.append(f"lhead={_quoted(f'cluster_{head}')}")
    if is_call(graphs, tail):
        extra.append(f"ltail={_quoted(f'cluster_{tail}')}")
        # The edge leaves the cluster's first node: what it leads to must still stand below all.
        if (height := _height(graphs, tail)) > 1:
            extra.append(f"minlen={height}")
    ends = f"  {_quoted(_first(graphs, tail))} -> {_quoted(_first(graphs, head))}"
    return f"{ends} [{' '.join(extra)}]" if extra else ends


def _first(graphs: Graphs, node: str) -> str:
    """A node that a line can lead to: clusters have none of their own."""
    while is_call(graphs, node):
        inner = graphs[node]
        node = next((name for name, needs in inner.items() if not needs), next(iter(inner)))
    return node


def _height(graphs: Graphs, node: str) -> int:
    """How many nodes stand below each other."""
    if not is_call(graphs, node):
        return 1
    inner = graphs[node]
    level = levels(inner)
    # Each level is as high as the highest of its nodes.
    heights: dict[int, int] = {}
    for name in inner:
        heights[level[name]] = max(heights.get(level[name], 0), _height(graphs, name))
    return sum(heights.values())


def _label(name: str, said: str) -> str:
    return f'{_quoted(name)[:-1]}\\n{said}"' if said else _quoted(name)


def _quoted(text: str) -> str:
    """A string as Graphviz reads it; in labels a backslash would begin an escape."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
