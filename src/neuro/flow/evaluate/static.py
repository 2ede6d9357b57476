"""Checks the names that expressions read, without evaluating them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from neuro.domain.problems import nearest
from neuro.flow.evaluate.boundary import OUTSIDE, leads_out
from neuro.flow.evaluate.functions import (
    ADD_TO_NEEDS,
    IN_LIVE_ONLY,
    IN_TASKS_ONLY,
    INSTEAD_OF,
    NO_DEPENDENCY,
    OF_TASKS,
)
from neuro.flow.expressions.nodes import (
    Attribute,
    Comprehension,
    ExpressionNode,
    FunctionCall,
    Literal,
    Name,
    Subscript,
    Template,
    calls,
    children,
)
from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Stage, keys_of
from neuro.flow.syntax.types import ListValue, MapValue, Value

if TYPE_CHECKING:
    from neuro.flow.problems import Report

# The known members of a name, or None where any may be there.
Shape: TypeAlias = "Mapping[str, Shape] | None"
Names: TypeAlias = "Mapping[str, Shape]"

_LIVE, _BATCH = 0, 1
# Names that are known only once tasks have ended.
_LATE = ("needs", "state")


class Members(dict[str, "Shape"]):
    """Members, and what to do about names that are not among them though one may think so."""

    def __init__(self, known: Mapping[str, Shape], hints: Mapping[str, str]) -> None:
        super().__init__(known)
        self.hints = hints


class Refused(dict[str, "Shape"]):
    """A member that is there and may not be read."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__()
        self.message = message
        self.hint = hint


def record(kind: type) -> Shape:
    """Return the shape of a record: its fields, each holding anything."""
    fields: frozenset[str] = kind.FIELDS  # type: ignore[attr-defined]
    return dict.fromkeys(fields)


_STAGES: dict[tuple[type[tree.TreeNode], bool], tuple[tuple[str, Stage | None], ...]] = {}


def _stages(kind: type[tree.TreeNode], batch: bool) -> tuple[tuple[str, Stage | None], ...]:
    """The keys of a class, each with the stage that evaluates it."""
    found = _STAGES.get((kind, batch))
    if found is None:
        index = _BATCH if batch else _LIVE
        found = _STAGES[kind, batch] = tuple(
            (name, key.stages[min(index, len(key.stages) - 1)] if key.stages else None)
            for name, key in keys_of(kind).items()
        )
    return found


def values_of(node: tree.TreeNode, *, batch: bool) -> Iterator[tuple[Stage | None, Value]]:
    """Every value below a node, with the stage that evaluates it."""
    for name, stage in _stages(type(node), batch):
        found = getattr(node, name)
        if isinstance(found, Value):
            if stage:  # Else nobody evaluates it.
                yield stage, found
        elif found:
            yield from _below(found, stage, batch)


def _below(found: object, stage: Stage | None, batch: bool) -> Iterator[tuple[Stage | None, Value]]:
    match found:
        case Value():
            yield stage, found
        case ListValue():
            for part in found.parts:
                yield stage, part
        case MapValue():
            for _, part in found.parts:
                yield stage, part
        case tree.Needs():
            for part, _ in found.parts:
                yield Stage.GRAPH, part
        case tree.Matrix():
            for products in found.products.values():
                yield from _below(products, Stage.MATRIX, batch)
            for row in (*found.exclude, *found.include):
                for value in row.values.values():
                    yield Stage.MATRIX, value
        case tree.TreeNode():
            yield from values_of(found, batch=batch)
        case Mapping():
            for one in found.values():
                yield from _below(one, stage, batch)


def check_template(
    template: Template, names: Names, report: Report, *, batch: bool = False
) -> None:
    """Report names and members that are not there, and functions out of their place."""
    for part in template.parts:
        if isinstance(part, ExpressionNode):
            for root, members in _lookups(part, frozenset()):
                _check_lookup(template, root, members, names, report)
    for call in calls(template):
        _check_call(template, call, names, report, batch=batch)


def _check_call(
    template: Template, call: FunctionCall, names: Names, report: Report, *, batch: bool
) -> None:
    name = call.function
    if name in OF_TASKS:
        if "needs" not in names:
            report.add(
                IN_TASKS_ONLY.format(name),
                template.locate(call.offset),
            )
            return
        needs = names["needs"]
        for argument in call.arguments:
            if isinstance(argument, Literal) and needs is not None and argument.value not in needs:
                _report_no_need(template, name, argument, needs, report)
    elif batch and name in INSTEAD_OF:
        report.add(
            IN_LIVE_ONLY.format(name),
            template.locate(call.offset),
            INSTEAD_OF[name],
        )
    elif name == "hash_files" and (outside := _outside(call)) is not None:
        # In the words and at the place of the evaluation, where it comes to that too.
        report.add(OUTSIDE.format(outside), template.locate(call.offset))
    elif batch and name.startswith("hash_files"):
        # Imported here: with what evaluates batches, for the few that hash files.
        from neuro.flow.evaluate.batch.functions import LATE_HASH

        for argument in call.arguments:
            for root, _ in _lookups(argument, frozenset()):
                if root.name in _LATE:
                    report.add(LATE_HASH.format(name), template.locate(root.offset))


def _outside(call: FunctionCall) -> str | None:
    """The first pattern of files that leads out of the workspace."""
    literals = (each.value for each in call.arguments if isinstance(each, Literal))
    return next((text for text in literals if isinstance(text, str) and leads_out(text)), None)


def _report_no_need(
    template: Template, function: str, argument: Literal, needs: Mapping[str, Shape], report: Report
) -> None:
    word = str(argument.value)
    report.add(
        NO_DEPENDENCY.format(function, argument.value),
        template.locate(argument.offset),
        (needs.hints.get(word) if isinstance(needs, Members) else None)
        or nearest(word, needs)
        or ADD_TO_NEEDS,
    )


def _lookups(
    node: ExpressionNode, local: frozenset[str]
) -> Iterator[tuple[Name, list[tuple[str, int]]]]:
    """The names that an expression reads, each with its constant members."""
    members: list[tuple[str, int]] = []
    root = node
    while isinstance(root, Attribute | Subscript):
        if isinstance(root, Attribute):
            members.append((root.name, root.offset))
        elif isinstance(root.key, Literal) and isinstance(root.key.value, str):
            members.append((root.key.value, root.offset))
        else:
            members.clear()
            yield from _lookups(root.key, local)
        root = root.target
    if isinstance(root, Name):
        if root.name not in local:
            yield root, members[::-1]
    elif isinstance(root, Comprehension):
        inner = local | {root.variable}
        yield from _lookups(root.source, local)
        yield from _lookups(root.element, inner)
        if root.condition is not None:
            yield from _lookups(root.condition, inner)
    else:
        for child in children(root):
            yield from _lookups(child, local)


def _check_lookup(
    template: Template,
    root: Name,
    members: list[tuple[str, int]],
    names: Names,
    report: Report,
) -> None:
    if root.name not in names:
        known = ", ".join(sorted(names))
        hint = nearest(root.name, names)
        if hint is None:
            hint = f"Available here: {known}." if known else "No context is available here."
        report.add(
            f"The '{root.name}' context is not available", template.locate(root.offset), hint
        )
        return
    shape, path = names[root.name], root.name
    for member, offset in members:
        if shape is None:
            return
        if member not in shape:
            known = ", ".join(sorted(shape))
            hint = shape.hints.get(member) if isinstance(shape, Members) else None
            if hint is None:
                hint = nearest(member, shape)
            if hint is None:
                hint = f"It has: {known}." if known else f"There is nothing in '{path}'."
            report.add(f"No attribute '{member}' in '{path}'", template.locate(offset), hint)
            return
        shape, path = shape[member], f"{path}.{member}"
        if isinstance(shape, Refused):
            report.add(shape.message, template.locate(offset), shape.hint)
            return
