"""The names that expressions of a list of tasks may read of each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.contexts import RowsToCome
from neuro.flow.evaluate.batch.ground import place_of
from neuro.flow.evaluate.static import Members, Shape
from neuro.flow.model import Level, NodeKind

if TYPE_CHECKING:
    from neuro.flow.evaluate.batch.graph import Built
    from neuro.flow.evaluate.batch.ground import Element, Place
    from neuro.flow.model import Node


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of an element: of its rows, and what runs for them in the end."""

    mains: list[Node]
    posts: list[Node]


class SeenNeeds:
    """The shapes of `needs` in one graph. None where what is in it is not known."""

    def __init__(self, built: Built) -> None:
        self._is_known = not any(one.open or one.is_unread for one in built.elements)
        self._of: Mapping[int, _Nodes] = {
            element.number: _Nodes([], []) for element in built.elements
        }
        self._shapes: dict[str, Shape] = {}
        for node in built.graph.nodes.values():
            place = place_of(node)
            element = place.element
            nodes = self._of[element.number]
            (nodes.posts if place.is_post else nodes.mains).append(node)
            self._shapes[node.id[-1]] = _end_of(place, is_whole=node.kind is NodeKind.GROUP)
            if element.group is not None and not place.is_post:
                self._shapes[element.group] = _end_of(place, is_whole=True)
        posts = {node.id[-1] for nodes in self._of.values() for node in nodes.posts}
        self._hints = {
            name: f"Add {name} to the `needs:` of this task."
            for name in self._shapes
            if name not in posts
        }

    def of(self, element: Element) -> Shape:
        """The names that an element's own expressions read."""
        names = _names_in(self._of[element.number].mains)
        return None if names is None else Members(self._ends(names), self._hints_for(element))

    def of_post(self, element: Element) -> Shape:
        """What that reads which runs in the end: its main, and what runs last before it."""
        names = _names_in(self._of[element.number].posts)
        if names is None:
            return None
        hint = f"A `post` sees its main and what runs last: {', '.join(sorted(names))}."
        return Members(self._ends(names), dict.fromkeys(self._shapes, hint))

    def whole(self) -> Shape:
        """The names that an action's outputs read: all of its tasks."""
        return self._shapes if self._is_known else None

    def _ends(self, names: Iterable[str]) -> dict[str, Shape]:
        return {name: self._shapes.get(name) for name in names}

    def _hints_for(self, element: Element) -> Mapping[str, str]:
        needs = element.task.needs
        parts = needs.parts if needs is not None else ()
        running = {
            str(part.constant): "It is needed as `running` only: write `completed`."
            for part, level in parts
            if level == Level.RUNNING.value
        }
        return {**self._hints, **running} if running else self._hints


def _names_in(nodes: Iterable[Node]) -> list[str] | None:
    """The names in the `needs` of some nodes; None where there may be any."""
    names: dict[str, None] = {}
    before: object = None
    some = False
    for node in nodes:
        targets, some = place_of(node).targets, True
        if isinstance(targets, RowsToCome):
            return None
        # Rows mostly share what they need.
        if targets is not before:
            names.update(dict.fromkeys(targets))
            before = targets
    return [*names] if some else None


def _end_of(place: Place, *, is_whole: bool) -> Shape:
    """The known end of a node, or of all rows of its matrix."""
    action = place.element.action
    outputs: Shape = None
    if action is not None and action.file.kind == "batch":
        outputs = dict.fromkeys(action.file.outputs)
    found: dict[str, Shape] = {"result": None, "outputs": outputs}
    return {**found, "rows": None} if is_whole else found
