"""Mixins, and the one rule by which a mapping of a file is laid over another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from neuro.flow.evaluate.values import Values
from neuro.flow.expressions.evaluator import Scope
from neuro.flow.syntax.keys import keys_of
from neuro.flow.syntax.problems import Report, nearest
from neuro.flow.syntax.types import ListValue, MapValue

if TYPE_CHECKING:
    from neuro.flow.syntax.source import Position
    from neuro.flow.syntax.tree import ExecUnit, LiveDefaults, Mixin

# Keys that say how a mapping is read, not what it holds.
_OWN_KEYS = frozenset({"mixins"})

# Other spellings of a command: whoever writes any of them has said what runs.
_FIELD_OF_KEY = {"bash": "cmd", "python": "cmd"}

Laid = TypeVar("Laid", bound="ExecUnit | LiveDefaults")


def overlay(child: Laid, parent: ExecUnit | LiveDefaults) -> Laid:
    """Give a child what its parent says and the child does not.

    Lists are joined, the child's items first; mappings are joined, the child's keys win; of
    anything else that both specify, the child's stays, null included.
    """
    own = {_FIELD_OF_KEY.get(key, key) for key in child.specified}
    changes: dict[str, Any] = {}
    taken: set[str] = set()
    for key in parent.specified:
        name = _FIELD_OF_KEY.get(key, key)
        if name in _OWN_KEYS or not hasattr(child, name):
            continue
        theirs = getattr(parent, name)
        if name not in own:
            changes[name] = theirs
            taken.add(key)
            continue
        joined = _join(getattr(child, name), theirs)
        if joined is not None:
            changes[name] = joined
    if not changes:
        return child
    return replace(
        child,
        **changes,
        specified=child.specified | taken,
        key_at={**parent.key_at, **child.key_at},
    )


def _join(mine: object, theirs: object) -> object | None:
    """Join two lists or two mappings; None where the child's value stays."""
    if isinstance(theirs, ListValue):
        if isinstance(mine, ListValue):
            return replace(mine, parts=mine.parts + theirs.parts)
        return theirs if mine is None else None
    if isinstance(theirs, MapValue):
        if isinstance(mine, MapValue):
            return replace(mine, parts=theirs.parts + mine.parts)
        return theirs if mine is None else None
    if isinstance(theirs, Mapping):
        if isinstance(mine, Mapping):
            return {**theirs, **mine}
        return theirs if mine is None else None
    return None


def _widened(mixin: Mixin, kind: type[Mixin]) -> Mixin:
    if isinstance(mixin, kind):
        return mixin
    return kind(**{entry.name: getattr(mixin, entry.name) for entry in fields(mixin)})


class Mixins:
    """The mixins of a workflow, each resolved once."""

    def __init__(self, known: Mapping[str, Mixin]) -> None:
        # The project's are told no keys of live files or batches, but may take in mixins that
        # have them: so all are of the class that has the most.
        widest = max(map(type, known.values()), key=lambda one: len(keys_of(one)), default=None)
        self._known = {
            name: mixin if widest is None else _widened(mixin, widest)
            for name, mixin in known.items()
        }
        self._resolved: dict[str, Mixin | None] = {}
        self._open: list[str] = []

    def apply(self, unit: Laid, names: ListValue | None, report: Report) -> Laid:
        """Lay a unit over its mixins: the rightmost is the nearest."""
        if names is None:
            return unit
        for name, at in reversed(list(self._names(names, report))):
            mixin = self._resolve(name, at, report)
            if mixin is not None:
                unit = overlay(unit, mixin)
        return unit

    def check(self, names: Iterable[str], report: Report) -> None:
        """Resolve mixins, used or not, for their problems.

        Those are a workflow's own: the project's may take in what only other workflows have.
        """
        for name in names:
            self._resolve(name, self._known[name].at, report)

    def _names(self, names: ListValue, report: Report) -> Iterator[tuple[str, Position]]:
        # Functions may make names, but there are no contexts yet.
        values = Values(Scope({}), report)
        for part in names.parts:
            for name in values.texts(replace(names, parts=(part,))):
                yield name, part.at

    def _resolve(self, name: str, at: Position, report: Report) -> Mixin | None:
        if name in self._open:
            circle = " -> ".join([*self._open[self._open.index(name) :], name])
            report.add(f"Mixins form a cycle: {circle}", at)
            return None
        if name in self._resolved:
            return self._resolved[name]
        mixin = self._known.get(name)
        if mixin is None:
            hint = nearest(name, self._known)
            if hint is None and self._known:
                hint = f"There are: {', '.join(sorted(self._known))}."
            report.add(f"Unknown mixin '{name}'", at, hint)
            return None
        self._open.append(name)
        try:
            self._resolved[name] = self.apply(mixin, mixin.mixins, report)
        finally:
            self._open.pop()
        return self._resolved[name]
