"""Tasks that wait for each other, and where a file says that one needs another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.ground import place_of
from neuro.flow.order import circles

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.model import FullId, Node
    from neuro.flow.problems import Report


def report_circles(nodes: Mapping[FullId, Node], report: Report) -> None:
    """Report tasks that wait for each other, at what closes the circle."""
    for circle in circles({node.id: node.needs for node in nodes.values()}):
        names: list[str] = []
        for full_id in (*circle, circle[0]):
            element = place_of(nodes[full_id]).element
            name = element.group or full_id[-1]
            if not names or names[-1] != name:
                names.append(name)
        way = [nodes[full_id] for full_id in circle]
        *before, at = (
            needs_at(node, following)
            for node, following in zip(way, [*way[1:], way[0]], strict=True)
        )
        hint = None
        if at is None:
            at = next((one for one in reversed(before) if one is not None), way[0].at)
            hint = (
                "A task without `needs:` waits for the one before it: write `needs: []` to"
                " change it."
            )
        report.add(
            f"Tasks need each other in a circle: {' -> '.join(names if names[1:] else names * 2)}",
            at,
            hint,
        )


def needs_at(node: Node, need: Node) -> Position | None:
    """Where a node says that it needs another; None where it does as the default."""
    needs = place_of(node).element.task.needs
    if needs is None:
        return None
    names = {need.id[-1], place_of(need).element.group}
    for part, _ in needs.parts:
        if part.template is None and str(part.constant) in names:
            return part.at
    made = [part.at for part, _ in needs.parts if part.template is not None]
    return made[0] if made else needs.at
