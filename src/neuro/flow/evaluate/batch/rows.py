"""The rows of one task: which its strategy gives, what they are called, and the nodes of each."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping

from neuro.flow.evaluate.batch import matrix
from neuro.flow.evaluate.batch.contexts import Member, RowsToCome, StrategyRecord, Target
from neuro.flow.evaluate.batch.ground import Element, Ground, Place
from neuro.flow.evaluate.batch.values import BatchValues
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.model import ROOT, FullId, Level, Limit, Node, NodeKind
from neuro.flow.problems import Report

# Kinds of nodes that are jobs, and count as such where there is no limit of their own.
_JOBS = frozenset({NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST})
NO_ROW: matrix.Row = {}


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


def element_rows(
    element: Element, ground: Ground, needs: Mapping[str, object], report: Report
) -> tuple[matrix.Row, ...] | None:
    """Evaluate a task's strategy; None where outputs decide it, or it is wrong."""
    strategy = element.task.strategy
    if strategy is None:
        return (NO_ROW,)
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
        rows = None if values.late else (NO_ROW,)
    else:
        rows = matrix.rows_of(matrix_, element.number, values, told)
        element.open = rows is None and not values.late
    for problem in told.problems:
        if not ground.is_broken or (matrix_ is not None and problem.at == matrix_.at):
            report.add(problem.message, problem.at, problem.hint)
    return rows


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
        found = ground.values({"matrix": NO_ROW}, report).one(value)
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
