"""Graphs: from a list of tasks to nodes that know what they wait for."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neuro.flow.evaluate.batch import matrix
from neuro.flow.evaluate.batch.circles import report_circles
from neuro.flow.evaluate.batch.contexts import (
    OPEN,
    UNKNOWN,
    GroupTarget,
    Member,
    RowsToCome,
    StrategyRecord,
    Target,
)
from neuro.flow.evaluate.batch.ground import (
    Element,
    Frame,
    Ground,
    Place,
)
from neuro.flow.evaluate.batch.ids import check_nodes, report_twice
from neuro.flow.evaluate.batch.values import BatchValues
from neuro.flow.evaluate.calls import (
    BATCH,
    find_called,
    reference_of,
    report_circle,
    report_no_mixins,
)
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.model import ROOT, FullId, Graph, Level, Limit, Node, NodeKind
from neuro.flow.problems import Report, nearest
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from neuro.flow.evaluate.actions import Action
    from neuro.flow.source import Position

_KINDS = {
    "batch": NodeKind.CALL,
    "stateful": NodeKind.STATEFUL,
    "local": NodeKind.LOCAL,
}
# Kinds of nodes that are jobs, and count as such where there is no limit of their own.
_JOBS = frozenset({NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST})
_NO_ROW: matrix.Row = {}


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
            member = Member((*prefix, element.group or f"task-{element.number}"), _NO_ROW)
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
            shared = self._waits_for(element, own, _NO_ROW)
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


def post_node(
    main: Node,
    member: Member,
    needs: Mapping[FullId, Level],
    targets: Mapping[str, Target],
    ground: Ground,
    group: FullId | None = None,
) -> Node:
    """Make what runs in the end for a stateful main; for a group of them, a group."""
    assert isinstance(main.source, Place)
    is_group = main.kind is NodeKind.GROUP
    return Node(
        id=(*member.id[:-1], f"post-{member.id[-1]}"),
        kind=NodeKind.GROUP if is_group else NodeKind.POST,
        needs=needs,
        fail_fast=main.fail_fast,
        limit=None if is_group else Limit(ROOT, ground.max_parallel),
        at=main.at,
        main=member.id,
        group=group,
        source=Place(
            main.source.element,
            member.matrix,
            RowsToCome(targets) if is_group else targets,
            is_post=True,
        ),
    )


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


def element_rows(
    element: Element, ground: Ground, needs: Mapping[str, object], report: Report
) -> tuple[matrix.Row, ...] | None:
    """Evaluate a task's strategy; None where outputs decide it, or it is wrong."""
    strategy = element.task.strategy
    if strategy is None:
        return (_NO_ROW,)
    frame = element.frame
    outer = frame.names.get("needs")
    if isinstance(outer, Mapping):
        # A module's matrix sees what its caller has waited for as well.
        needs = ChainMap(outer, needs)  # type: ignore[arg-type]
    names = {**frame.names, "strategy": frame.strategy, "needs": needs}
    told = Report()
    values = BatchValues(ExpressionScope(names, ground.functions), told, ground.hashes)
    fail_fast = values.flag(strategy.fail_fast)
    element.own_limit = values.parallel(strategy.max_parallel) or element.own_limit
    element.strategy = StrategyRecord(
        frame.strategy.fail_fast if fail_fast is None else fail_fast,
        element.own_limit or frame.strategy.max_parallel,
    )
    matrix_ = strategy.matrix
    rows: tuple[matrix.Row, ...] | None
    if matrix_ is None:
        rows = None if values.late else (_NO_ROW,)
    else:
        rows = matrix.rows_of(matrix_, element.number, values, told)
        element.open = rows is None and not values.late
    for problem in told.problems:
        if not ground.is_broken or (matrix_ is not None and problem.at == matrix_.at):
            report.add(problem.message, problem.at, problem.hint)
    return rows


def _unknown_row(element: Element) -> Mapping[str, object]:
    return OPEN if element.open else UNKNOWN


def row_names(
    element: Element, rows: Iterable[matrix.Row], ground: Ground, report: Report
) -> tuple[list[str | None], str | None]:
    """Name the rows of a task; with an id that is the same for all of them, it is their group's."""
    value, has_matrix = element.task.id, element.task.strategy is not None
    rows = list(rows)
    if value is None:
        return [matrix.auto_id(element.number, row) for row in rows], None
    if matrix.reads(value, "matrix"):
        names = []
        for row in rows:
            name = ground.values({"matrix": row}, report).one(value)
            names.append(None if name is None else str(name))
        if len(names) < 2 or len(set(names)) > 1 or names[0] is None:
            return names, None
        base = names[0]
    else:
        found = ground.values({"matrix": _NO_ROW}, report).one(value)
        if found is None:
            return [None for _ in rows], None
        base = str(found)
        if not has_matrix:
            return [base for _ in rows], None
    if rows and not any(row.keys() - {"ORDINAL"} for row in rows):
        # All lists are empty, or the matrix could not be read: there is nothing to name rows by.
        return [base for _ in rows], None
    return [matrix.row_id(base, row) for row in rows], base


def row_node(
    element: Element,
    member: Member,
    needs: Mapping[FullId, Level],
    targets: Mapping[str, Target],
    group: FullId | None,
    ground: Ground,
    report: Report,
) -> Node:
    """Make the node of one row."""
    place = Place(element, member.matrix, targets)
    tolerated = False
    if element.task.continue_on_error is not None:
        values = ground.values(place.early_names(), report)
        tolerated = bool(values.flag(element.task.continue_on_error))
        if values.late:
            report.add(
                "continue_on_error cannot depend on outputs: give a constant or a parameter",
                element.task.continue_on_error.at,
            )
    return Node(
        id=member.id,
        kind=element.kind,
        needs=needs,
        fail_fast=element.strategy.fail_fast,
        limit=_limit(element, ground),
        at=element.task.at,
        continue_on_error=tolerated,
        group=group,
        source=place,
    )


def _limit(element: Element, ground: Ground) -> Limit | None:
    if element.kind is NodeKind.LOCAL:
        return None
    if element.own_limit is not None:
        key = (*element.frame.prefix, element.group or f"#{element.number}")
        return Limit(key, element.own_limit)
    return Limit(ROOT, ground.max_parallel) if element.kind in _JOBS else None


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
