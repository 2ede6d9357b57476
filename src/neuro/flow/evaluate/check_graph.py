"""The graph of a list of tasks while it is checked: what they call, and see of each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuro.flow.evaluate.static import Members, Shape
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from neuro.flow.evaluate.actions import Action
    from neuro.flow.evaluate.graph import Element, Need, Outline
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.source import Position


@dataclass(slots=True)
class Content:
    """What is in an action's file, as those see it that call it: ids of its tasks."""

    remote: tuple[str, ...] | None = None
    local: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Called:
    """An action as an element of `tasks` calls it."""

    action: Action
    content: Content


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """A list of tasks: what they are and need, and what they call."""

    outline: Outline
    # What each element calls; None for tasks, and for what could not be read.
    called: Sequence[Called | None]
    hints: Mapping[str, str]

    @property
    def posts(self) -> list[int]:
        """The indices of calls of which something runs in the end."""
        return [
            index
            for index, call in enumerate(self.called)
            if call is not None and call.action.file.post is not None
        ]


def seen_needs(graph: TaskGraph, element: Element) -> Shape:
    """What a task reads in `needs`; None where that is not known."""
    found = graph.outline
    if element.task.needs is None:
        if element.number == 1:
            return Members({}, graph.hints)
        before = found.elements[element.number - 2]
        if before.ids is None and before.group is None:
            return None
        names = [*(before.ids or ()), *([before.group] if before.group is not None else [])]
        return Members(_ends_of(graph, names), graph.hints)
    names, running = [], {}
    for needs in _distinct(element.needs):
        if needs is None:
            return None
        for need in needs:
            if need.level == "completed":
                names.append(need.id)
            else:
                running[need.id] = "It is needed as `running` only: write `completed`."
    hints = {**graph.hints, **running} if running else graph.hints
    return Members(_ends_of(graph, names), hints)


def _distinct(needs: Sequence[Sequence[Need] | None]) -> Iterator[Sequence[Need] | None]:
    """The needs of the rows; those of equal rows are the same list."""
    before: object = ()
    for one in needs:
        if one is not before:
            yield one
        before = one


def post_needs(graph: TaskGraph) -> dict[int, Shape]:
    """What posts read in `needs`, by the index of the call that they are of.

    They wait for their main, and for the posts of the next call that has some: those of the last
    one for the tasks whose end nobody waits for. None where that is not known.
    """
    if not _is_known(graph):
        return dict.fromkeys(graph.posts)
    elements = graph.outline.elements
    awaited = _awaited(graph.outline)
    later = [id for element in elements for id in _real_ids(element) if id not in awaited]
    shapes: dict[int, Shape] = {}
    for index in reversed(graph.posts):
        own = _real_ids(elements[index])
        names = [*own, *later]
        hint = f"A `post` sees its main and what runs last: {', '.join(sorted(names))}."
        # The ids of rows that outputs decide are not known.
        is_known = elements[index].ids is not None
        members = Members(_ends_of(graph, names), dict.fromkeys(graph.outline.nodes, hint))
        shapes[index] = members if is_known else None
        later = _post_ids(own) or later
    return shapes


def every_need(graph: TaskGraph) -> Shape:
    """What an action's outputs read in `needs`: all that is in it. None where that is not known."""
    found = graph.outline
    if found.open:
        return None
    posts = [id for index in graph.posts for id in _post_ids(_real_ids(found.elements[index]))]
    return _ends_of(graph, [*found.nodes, *posts])


def _post_ids(mains: Sequence[str]) -> list[str]:
    return [f"post-{id}" for id in mains]


def _is_known(graph: TaskGraph) -> bool:
    """Whether all ids and needs of a graph are known, and what it calls."""
    return not graph.outline.open and all(
        (call is not None or isinstance(element.task, tree.Task)) and None not in element.needs
        for element, call in zip(graph.outline.elements, graph.called, strict=True)
    )


def _awaited(found: Outline) -> set[str]:
    """The real ids of those whose end others wait for."""
    awaited: set[str] = set()
    for before, element in zip([None, *found.elements], found.elements, strict=False):
        if element.task.needs is None:
            awaited.update(_real_ids(before) if before is not None else ())
        for needs in _distinct(element.needs):
            for need in needs or ():
                node = found.nodes.get(need.id)
                if need.level == "completed" and node is not None:
                    owner = found.owner(node)
                    awaited.update(_real_ids(owner) if owner.group == need.id else (need.id,))
    return awaited


def _real_ids(element: Element) -> Sequence[str]:
    """The ids of an element's nodes; rows that outputs decide have one for all of them."""
    return element.ids if element.ids is not None else (element.name,)


def _ends_of(graph: TaskGraph, names: Iterable[str]) -> dict[str, Shape]:
    """What is known of how the tasks with these ids end."""
    return {name: _end_of(graph, name) for name in names}


def _end_of(graph: TaskGraph, name: str) -> Shape:
    found = graph.outline
    node = found.nodes.get(name)
    if node is None:
        return None
    call = graph.called[found.owners[node]]
    outputs: Shape = None
    if call is not None and call.action.file.kind == "batch":
        outputs = dict.fromkeys(call.action.file.outputs)
    if found.owner(node).group == name:
        return {"result": None, "outputs": outputs, "rows": None}
    return {"result": None, "outputs": outputs}


def check_ids(graph: TaskGraph, report: Report) -> None:
    """Ids of rows are told from those of tasks in calls."""
    rows: list[tuple[str, tree.Task | tree.TaskCall]] = []
    calls: set[str] = set()
    for element, call in zip(graph.outline.elements, graph.called, strict=True):
        rows += [(name, element.task) for name in element.ids or () if "." in name]
        if call is not None and call.action.file.kind == "batch":
            calls.update(element.ids or ())
    if rows and calls:
        # Imported here: with what evaluates batches, for the few that have such rows.
        from neuro.flow.evaluate.batch.ids import check_dots

        check_dots(rows, calls, report)


def check_order(graph: TaskGraph, content: Content, report: Report) -> None:
    """Local actions run before all else: they cannot wait for a task on the platform."""
    found = graph.outline
    # For each node: the first remote task before it, and where it says so.
    before: dict[int, tuple[str, Position | None]] = {}
    told: set[int] = set()
    for node in found.order:
        index = found.owners[node]
        for edge in found.edges[node]:
            remote = _remote(graph, edge.target)
            if remote is not None:
                before[node] = (".".join((found.name(edge.target), *remote)), edge.at)
            elif edge.target in before:
                before[node] = (before[edge.target][0], edge.at or before[edge.target][1])
            if node in before:
                break
        call = graph.called[index]
        if call is None or call.content.local is None:
            continue
        name = ".".join((found.name(node), *call.content.local))
        if node in before and index not in told:
            told.add(index)
            report.add(
                f"Local action '{name}' depends on remote task '{before[node][0]}'",
                before[node][1] or found.elements[index].task.at,
                "Local actions all run before the tasks on the platform: let it need none of "
                "those, `needs: []` for example.",
            )
    for index, element in enumerate(found.elements):
        call = graph.called[index]
        remote = _remote(graph, element.node)
        if content.remote is None and remote is not None:
            content.remote = (element.name, *remote)
        if content.local is None and call is not None and call.content.local is not None:
            content.local = (element.name, *call.content.local)


def _remote(graph: TaskGraph, node: int) -> tuple[str, ...] | None:
    """The way from a node to a task on the platform: none for local actions."""
    if isinstance(graph.outline.owner(node).task, tree.Task):
        return ()
    call = graph.called[graph.outline.owners[node]]
    return call.content.remote if call is not None else None
