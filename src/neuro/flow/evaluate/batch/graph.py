"""Graphs: from a list of tasks to nodes that know what they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neuro.domain.problems import nearest
from neuro.flow.evaluate.batch.circles import report_circles
from neuro.flow.evaluate.batch.contexts import (
    OPEN,
    UNKNOWN,
    GroupTarget,
    Member,
    RowsToCome,
    Target,
)
from neuro.flow.evaluate.batch.ground import (
    Element,
    Frame,
    Ground,
    Place,
)
from neuro.flow.evaluate.batch.ids import check_nodes, report_twice
from neuro.flow.evaluate.batch.rows import NO_ROW, element_rows, post_node, row_names, row_node
from neuro.flow.evaluate.calls import (
    BATCH,
    find_called,
    reference_of,
    report_circle,
    report_no_mixins,
)
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.model import FullId, Graph, Level, Node, NodeKind
from neuro.flow.problems import Report
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.actions import Action

_KINDS = {
    "batch": NodeKind.CALL,
    "stateful": NodeKind.STATEFUL,
    "local": NodeKind.LOCAL,
}


@dataclass(frozen=True, slots=True)
class _Waits:
    """What nodes wait for, and how expressions name it. Nodes that need the same share it."""

    needs: Mapping[FullId, Level] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)


_NOTHING = _Waits()


class Built(NamedTuple):
    """A graph, and the elements of the list of tasks that it was made of.

    An element whose ids are not known, or are wrong, has no nodes.
    """

    graph: Graph
    elements: tuple[Element, ...]


def build(frame: Frame, ground: Ground, report: Report) -> Built:
    """Build the graph of a frame's tasks, as far as what they are is known."""
    before = len(report.problems)
    built = _Builder(frame, ground, report).build()
    if len(report.problems) == before:
        check_nodes(built.graph.nodes, report)
    return built


class _Builder:
    def __init__(self, frame: Frame, ground: Ground, report: Report) -> None:
        self.frame = frame
        self.ground = ground
        self.report = report
        self.known: dict[str, tuple[Target, Element]] = {}
        self.nodes: dict[FullId, Node] = {}
        self.waits: dict[tuple[tuple[str, str], ...], _Waits] = {}
        # Whether there are ids that only the submission tells: then any need may be of one.
        self.open = False

    def build(self) -> Built:
        elements: list[tuple[Element, list[Member]]] = []
        for number, task in enumerate(self.frame.tasks, start=1):
            element = self._element(number, task)
            elements.append((element, self._members(element)))
        self.open = any(element.open for element, _ in elements)
        before = _NOTHING
        for element, members in elements:
            self._nodes(element, members, before)
            before = self._default_waits(element, members)
        self._posts(elements)
        report_circles(self.nodes, self.report)
        return Built(Graph(self.frame.prefix, self.nodes), tuple(one for one, _ in elements))

    # Elements

    def _element(self, number: int, task: tree.Task | tree.TaskCall) -> Element:
        kind, action = NodeKind.TASK, None
        if isinstance(task, tree.TaskCall):
            action = called(task, self.frame, self.ground, self.report)
            # One that could not be read still has an id, and may be needed.
            kind = _KINDS[action.file.kind] if action is not None else NodeKind.CALL
            if action is not None and task.cache is not None and kind is not NodeKind.CALL:
                self.report.add(
                    f"Specifying cache in action call to the action {reference_of(task)} of kind "
                    f"{action.file.kind} is not supported",
                    task.key_at["cache"],
                    "Only tasks and the tasks of batch actions are cached: leave it out.",
                )
        elif task.mixins is not None:
            if self.frame.mixins is None:
                report_no_mixins(task.mixins.at, self.report)
            else:
                task = self.frame.mixins.apply(task, task.mixins, self.report)
        return Element(self.frame, number, task, kind, action, self.frame.strategy)

    def _members(self, element: Element) -> list[Member]:
        """Decide the rows of an element, and make their ids known."""
        task, prefix = element.task, self.frame.prefix
        rows = element_rows(element, self.ground, UNKNOWN, self.report)
        if rows is None:
            element.decided = False
            element.group = _constant_id(task)
            member = Member((*prefix, element.group or f"task-{element.number}"), NO_ROW)
            self._add(member.id[-1], GroupTarget(member.id, None), element)
            return [member]
        names, element.group = row_names(element, rows, self.ground, self.report)
        # A wrong id is reported already: needs of it are not wrong too.
        element.open = None in names
        members = [
            Member((*prefix, name), row) for name, row in zip(names, rows, strict=True) if name
        ]
        found = [member for member in members if self._add(member.id[-1], member.id, element)]
        if element.group is not None:
            group = GroupTarget((*prefix, element.group), tuple(found))
            self._add(element.group, group, element)
        return found

    def _add(self, name: str, target: Target, element: Element) -> bool:
        first = self.known.setdefault(name, (target, element))
        if first[0] is not target:
            report_twice(name, first[1], element, self.report)
        return first[0] is target

    # Nodes

    def _nodes(self, element: Element, members: list[Member], before: _Waits) -> None:
        task = element.task
        shared = before
        own: tree.Needs | None = task.needs
        if own is not None and not any(part.template is not None for part, _ in own.parts):
            shared = self._waits_for(element, own, NO_ROW)
            own = None
        group = (*self.frame.prefix, element.group) if element.group is not None else None
        for member in members:
            row = member.matrix if element.decided else _unknown_row(element)
            waits = shared if own is None else self._waits_for(element, own, row)
            if not element.decided:
                node = self._group(member.id, element, waits)
            else:
                node = row_node(
                    element, member, waits.needs, waits.targets, group, self.ground, self.report
                )
            self.nodes[member.id] = node

    def _group(self, full_id: FullId, element: Element, waits: _Waits) -> Node:
        return Node(
            id=full_id,
            kind=NodeKind.GROUP,
            needs=waits.needs,
            fail_fast=element.strategy.fail_fast,
            limit=None,
            at=element.task.at,
            source=Place(element, _unknown_row(element), waits.targets),
        )

    def _default_waits(self, element: Element, members: list[Member]) -> _Waits:
        needs = dict.fromkeys((member.id for member in members), Level.COMPLETED)
        targets: dict[str, Target] = {}
        if element.group is not None and element.group in self.known:
            targets[element.group] = self.known[element.group][0]
        elif not element.decided:
            targets[members[0].id[-1]] = self.known[members[0].id[-1]][0]
        if element.decided:
            targets.update((member.id[-1], member.id) for member in members)
        return _Waits(needs, RowsToCome(targets) if element.open else targets)

    def _waits_for(self, element: Element, needs: tree.Needs, row: Mapping[str, object]) -> _Waits:
        found: list[tuple[str, str]] = []
        values = self.ground.values({"matrix": row}, self.report)
        for part, level in needs.parts:
            name = values.one(part)
            if name is None:
                if values.late:
                    self.report.add(
                        "What a task needs cannot depend on a matrix that outputs decide", part.at
                    )
                continue
            if str(name) not in self.known and not self.open:
                self._unknown_need(element, str(name), part.at)
                continue
            found.append((str(name), level))
        key = tuple(found)
        if key not in self.waits:
            self.waits[key] = self._resolved(found)
        return self.waits[key]

    def _unknown_need(self, element: Element, name: str, at: Position) -> None:
        subject = "The task" if element.task.id is None else f"Task {element.name}"
        # The ids that people write, not those that are made of rows.
        known = [one for one in self.known if one.isidentifier()]
        hint = nearest(name, known)
        if hint is None and known:
            hint = f"There are: {', '.join(sorted(known))}."
        self.report.add(f"{subject} needs unknown task {name}", at, hint)

    def _resolved(self, found: Iterable[tuple[str, str]]) -> _Waits:
        needs: dict[FullId, Level] = {}
        targets: dict[str, Target] = {}
        for name, text in found:
            level = Level(text)
            if name not in self.known:
                targets = RowsToCome(targets)
                continue
            target = self.known[name][0]
            if level is Level.COMPLETED:
                targets[name] = target
            for one in _ids_of(target):
                # Who needs a task both ways waits for its end.
                if needs.get(one) is not Level.COMPLETED:
                    needs[one] = level
        return _Waits(needs, targets)

    # Posts

    def _posts(self, elements: list[tuple[Element, list[Member]]]) -> None:
        """Add what runs in the end: for the last stateful call first, each after the one before."""
        stateful = [
            (element, members)
            for element, members in elements
            if element.action is not None
            and element.kind is NodeKind.STATEFUL
            and element.action.file.post is not None
        ]
        if not stateful:
            return
        later = list(_sinks(self.nodes))
        for element, members in reversed(stateful):
            posts: list[FullId] = []
            is_open = self.open or any(one.is_unread for one, _ in elements)
            for member in members:
                needs = dict.fromkeys((member.id, *later), Level.COMPLETED)
                targets: dict[str, Target] = {one[-1]: self._target(one) for one in needs}
                if is_open:
                    targets = RowsToCome(targets)
                main = self.nodes[member.id]
                post = post_node(main, member, needs, targets, self.ground)
                if not self._add(post.id[-1], post.id, element):
                    continue
                self.nodes[post.id] = post
                posts.append(post.id)
            later = posts or later

    def _target(self, full_id: FullId) -> Target:
        is_group = full_id in self.nodes and self.nodes[full_id].kind is NodeKind.GROUP
        return GroupTarget(full_id, None) if is_group else full_id


def called(task: tree.TaskCall, frame: Frame, ground: Ground, report: Report) -> Action | None:
    """Return the action, or the module, that a task calls."""
    action = find_called(
        task, BATCH, lambda reference, at: ground.files.action(reference, at, report), report
    )
    reference = reference_of(task)
    if action is not None and reference in frame.calls:
        report_circle(frame.calls[frame.calls.index(reference) :], task, report)
        return None
    return action


def _unknown_row(element: Element) -> Mapping[str, object]:
    return OPEN if element.open else UNKNOWN


def _constant_id(task: tree.Task | tree.TaskCall) -> str | None:
    return constant_text(task.id)


def _ids_of(target: Target) -> Iterator[FullId]:
    if not isinstance(target, GroupTarget):
        yield target
    elif target.members is None:
        yield target.id
    else:
        for member in target.members:
            yield member.id


def _shared(nodes: Iterable[Node]) -> Iterator[Mapping[FullId, Level]]:
    """The needs of nodes, those that many share once."""
    seen: set[int] = set()
    for node in nodes:
        if id(node.needs) not in seen:
            seen.add(id(node.needs))
            yield node.needs


def _sinks(nodes: Mapping[FullId, Node]) -> Iterator[FullId]:
    """The nodes whose end nobody waits for."""
    awaited: set[FullId] = set()
    for needs in _shared(nodes.values()):
        awaited.update(one for one, level in needs.items() if level is Level.COMPLETED)
    return (one for one in nodes if one not in awaited)
