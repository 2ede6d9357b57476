"""The graph of a batch's tasks, as far as it is known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neuro.flow.syntax.problems import nearest

if TYPE_CHECKING:
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.source import Position
    from neuro.flow.syntax.tree import Task, TaskCall


def check(tasks: Sequence[Task | TaskCall], report: Report) -> None:
    """Report ids that are there twice, needs of no task, and circles of needs.

    Ids and needs with expressions are left to the submission, and with any such id every need may
    be one that is made by it.
    """
    ids: dict[str, Task | TaskCall] = {}
    open_ids = False
    for task in tasks:
        if task.id is None:
            continue
        if task.id.template is not None:
            open_ids = True
            continue
        name = str(task.id.constant)
        if name in ids:
            first = ids[name].at.line
            report.add(
                f"The id '{name}' is there twice",
                task.id.at,
                f"The first one is the task at line {first}.",
            )
        else:
            ids[name] = task
    needs: dict[str, list[tuple[str, Position]]] = {}
    for task in tasks:
        found = [
            (str(part.constant), part.at)
            for part, _ in (task.needs.parts if task.needs is not None else ())
            if part.template is None
        ]
        own = str(task.id.constant) if task.id is not None and not task.id.template else None
        if own is not None:
            needs.setdefault(own, found)
        for name, at in found:
            if name not in ids and not open_ids:
                subject = f"Task {own}" if own is not None else "The task"
                hint = nearest(name, ids)
                if hint is None and ids:
                    hint = f"There are: {', '.join(sorted(ids))}."
                report.add(f"{subject} needs unknown task {name}", at, hint)
    _report_circles(needs, report)


def _report_circles(needs: Mapping[str, list[tuple[str, Position]]], report: Report) -> None:
    done: set[str] = set()
    for start in needs:
        # Depth first, with the way here kept: a need that is on the way closes a circle.
        way: list[str] = []
        stack = [(start, iter(needs[start]))] if start not in done else []
        if stack:
            way.append(start)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                way.pop()
                done.add(name)
                continue
            need, at = following
            if need in way:
                circle = " -> ".join([*way[way.index(need) :], need])
                report.add(f"Tasks need each other in a circle: {circle}", at)
            elif need in needs and need not in done:
                stack.append((need, iter(needs[need])))
                way.append(need)
