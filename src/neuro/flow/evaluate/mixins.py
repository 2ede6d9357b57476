"""Mixins, and the one rule by which a mapping of a file is laid over another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from neuro.domain.problems import nearest
from neuro.flow.evaluate.values import ValueEvaluator
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.problems import Report
from neuro.flow.syntax.keys import keys_of
from neuro.flow.syntax.types import ListValue, MapValue

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.syntax.tree import ExecUnit, LiveDefaults, Mixin

# Keys that say how a mapping is read, not what it holds.
_OWN_KEYS = frozenset({"mixins"})

# Other spellings of a command: whoever writes any of them has said what runs.
_FIELD_OF_KEY = {"bash": "cmd", "python": "cmd"}

# No flow file comes near these; without them one of a stranger takes all time and memory.
MAX_NAMES = 100
MAX_DEPTH = 100
MAX_JOINED = 10_000

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
    """Join two lists or two mappings; None where the child's value stays.

    What both have from the same place in a file, of a mixin that both took in, is there once: of
    mixins that each name two more, it would be there 2^n times else.
    """
    if isinstance(theirs, ListValue):
        if isinstance(mine, ListValue):
            known = set(map(id, mine.parts))
            new = tuple(part for part in theirs.parts if id(part) not in known)
            return replace(mine, parts=mine.parts + new)
        return theirs if mine is None else None
    if isinstance(theirs, MapValue):
        if isinstance(mine, MapValue):
            known = {id(value) for _, value in mine.parts}
            new_pairs = tuple(pair for pair in theirs.parts if id(pair[1]) not in known)
            return replace(mine, parts=new_pairs + mine.parts)
        return theirs if mine is None else None
    if isinstance(theirs, Mapping):
        if isinstance(mine, Mapping):
            return {**theirs, **mine}
        return theirs if mine is None else None
    return None


def _size(unit: ExecUnit | LiveDefaults) -> int:
    values = (getattr(unit, entry.name) for entry in fields(unit))
    return sum(len(value.parts) for value in values if isinstance(value, ListValue | MapValue))


def _widened(mixin: Mixin, kind: type[Mixin]) -> Mixin:
    if isinstance(mixin, kind):
        return mixin
    return kind(**{entry.name: getattr(mixin, entry.name) for entry in fields(mixin)})


class Mixins:
    """The mixins of a workflow, each resolved once."""

    is_known = True

    def __init__(self, known: Mapping[str, Mixin]) -> None:
        # The project's know no keys of live files or batches, but may take in mixins that
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
        for name, at in self._nearest_first(names, report):
            mixin = self._resolve(name, at, report)
            if mixin is None:
                continue
            unit = overlay(unit, mixin)
            if _size(unit) > MAX_JOINED:
                report.add(
                    f"The mixins produce more than {MAX_JOINED} items here",
                    at,
                    "Give fewer to each job or task.",
                )
                break
        return unit

    def _nearest_first(self, names: ListValue, report: Report) -> list[tuple[str, Position]]:
        """The names from right to left; one that is there again adds nothing."""
        found = list(islice(self._names(names, report), MAX_NAMES + 1))
        if len(found) > MAX_NAMES:
            report.add(f"More than {MAX_NAMES} mixins in one list", found[-1][1])
            return []
        nearest_first: dict[str, Position] = {}
        for name, at in reversed(found):
            nearest_first.setdefault(name, at)
        return [*nearest_first.items()]

    def check(self, names: Iterable[str], report: Report) -> None:
        """Resolve mixins, used or not, for their problems.

        Those are a workflow's own: the project's may take in what only other workflows have.
        """
        for name in names:
            self._resolve(name, self._known[name].at, report)

    def _names(self, names: ListValue, report: Report) -> Iterator[tuple[str, Position]]:
        # Functions may make names, but there are no contexts yet.
        values = ValueEvaluator(ExpressionScope({}), report)
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
        if len(self._open) >= MAX_DEPTH:
            report.add(f"Mixins include each other more than {MAX_DEPTH} levels deep", at)
            return None
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


class UnknownMixins(Mixins):
    """The mixins of an unknown caller: nobody knows which there are."""

    is_known = False

    def __init__(self) -> None:
        super().__init__({})

    def apply(self, unit: Laid, names: ListValue | None, report: Report) -> Laid:
        """Leave a unit as it is."""
        return unit
