"""The records that expressions of a batch see beside those of live workflows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

from neuro.domain.bakes import GitInfo, TaskStatus
from neuro.flow.evaluate.contexts import FlowRecord, VolumeRecord
from neuro.flow.evaluate.values import NotGiven, Unknowable
from neuro.flow.expressions.evaluator import EvaluationError
from neuro.flow.expressions.values import Record
from neuro.flow.model import FullId, Outcome, Outcomes

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class BatchFlowRecord(FlowRecord):
    """`flow` in a batch."""

    FIELDS: ClassVar[frozenset[str]] = FlowRecord.FIELDS | {"life_span"}

    life_span: float | None


@dataclass(frozen=True, slots=True)
class BatchActionFlowRecord(BatchFlowRecord):
    """`flow` in the file of a batch action."""

    FIELDS: ClassVar[frozenset[str]] = BatchFlowRecord.FIELDS | {"action_path"}

    action_path: Path


@dataclass(frozen=True, slots=True)
class StrategyRecord(Record):
    """`strategy`: how the rows of a task run."""

    FIELDS: ClassVar[frozenset[str]] = frozenset({"fail_fast", "max_parallel"})

    fail_fast: bool
    max_parallel: int


class CommitRecord(Record):
    """`git` in a batch: the commit that the bake was submitted from."""

    __slots__ = ("_given", "_info")
    FIELDS: ClassVar[frozenset[str]] = frozenset({"sha", "branch", "tags"})

    def __init__(self, info: GitInfo | None, *, given: bool = True) -> None:
        self._info = info
        self._given = given

    @property
    def sha(self) -> str:
        return self._known().sha

    @property
    def branch(self) -> str:
        return self._known().branch

    @property
    def tags(self) -> list[str]:
        return self._known().tags

    def _known(self) -> GitInfo:
        if not self._given:
            raise NotGiven
        if self._info is None:
            raise EvaluationError(
                "Git info is not available: the project was not in a Git repository when the bake"
                " was submitted",
                hint="`git init` and a first commit give `git` its values.",
            )
        return self._info


class Partial(dict[str, V]):
    """A context of which some members are not known yet.

    Outputs of tasks decide the `late` ones, and the submission decides the `open` ones.
    """

    def __init__(
        self,
        known: Mapping[str, V],
        late: frozenset[str] = frozenset(),
        open: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(known)
        self.late = late
        self.open = open

    def __missing__(self, name: str) -> V:
        if name in self.late:
            raise Unknowable
        if name in self.open:
            raise NotGiven
        raise KeyError(name)


class Volumes(Partial[VolumeRecord]):
    """`volumes`: which of them were read is noted."""

    def __init__(self, known: Mapping[str, VolumeRecord], open: frozenset[str]) -> None:
        super().__init__(known, open=open)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> VolumeRecord:
        found = super().__getitem__(name)
        self.read.add(name)
        return found


class Unknown(Mapping[str, object]):
    """A context that is not known yet, whatever is asked of it."""

    def __init__(self, why: type[Unknowable]) -> None:
        self._why = why

    def __getitem__(self, name: str) -> object:
        raise self._why

    def __iter__(self) -> Iterator[str]:
        raise self._why

    def __len__(self) -> int:
        raise self._why


# Decided by what tasks leave, and by the submission.
UNKNOWN, OPEN = Unknown(Unknowable), Unknown(NotGiven)


class Ended(Record):
    """How a dependency ended: what success() and failure() ask of it."""

    __slots__ = ()

    @property
    def result(self) -> str:
        """The status, as a string."""
        raise NotImplementedError

    @property
    def fine(self) -> bool:
        """Whether dependents may go on."""
        raise NotImplementedError

    @property
    def failed(self) -> bool:
        """Whether it failed, and may not."""
        raise NotImplementedError


class NeedRecord(Ended):
    """`needs.<id>`: how a task ended, as soon as it has."""

    __slots__ = ("_outcome",)
    FIELDS: ClassVar[Collection[str]] = ("result", "outputs")

    def __init__(self, outcome: Outcome | None) -> None:
        self._outcome = outcome

    @property
    def result(self) -> str:
        return self._known().result.value

    @property
    def outputs(self) -> Mapping[str, str]:
        return self._known().outputs

    @property
    def fine(self) -> bool:
        return is_fine(self._known())

    @property
    def failed(self) -> bool:
        return has_failed(self._known())

    def _known(self) -> Outcome:
        if self._outcome is None:
            raise Unknowable
        return self._outcome


class RowRecord(NeedRecord):
    """An element of `needs.<id>.rows`: how one row of a matrix ended."""

    __slots__ = ("id", "matrix")
    FIELDS: ClassVar[Collection[str]] = ("id", "matrix", "result", "outputs")

    def __init__(self, name: str, matrix: Mapping[str, object], outcome: Outcome | None) -> None:
        super().__init__(outcome)
        self.id = name
        self.matrix = matrix


class _AnyOutput(dict[str, "list[str | None]"]):
    """Outputs of a matrix of which no row has succeeded: which names there are, nobody knows."""

    def __init__(self, known: Mapping[str, list[str | None]], rows: int) -> None:
        super().__init__(known)
        self._rows = rows

    def __missing__(self, name: str) -> list[str | None]:
        return [None] * self._rows


class GroupRecord(Ended):
    """`needs.<id>` of a matrix: how all its rows ended."""

    __slots__ = ("_whole", "rows")
    FIELDS: ClassVar[Collection[str]] = ("result", "outputs", "rows")

    def __init__(self, rows: list[RowRecord], whole: Outcome | None = None) -> None:
        # Without rows, as nothing came of the matrix, there may be an outcome of the whole.
        self._whole = whole
        self.rows = rows

    @property
    def result(self) -> str:
        if self._whole is not None:
            return self._whole.result.value
        results = [row.result for row in self.rows]
        for worst in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            if worst.value in results:
                return worst.value
        if results and all(result == TaskStatus.SKIPPED.value for result in results):
            return TaskStatus.SKIPPED.value
        return TaskStatus.SUCCEEDED.value

    @property
    def outputs(self) -> Mapping[str, list[str | None]]:
        """Each output's values in the order of the rows; None for a row without it."""
        every = [row.outputs for row in self.rows]
        keys = dict.fromkeys(key for outputs in every for key in outputs)
        lists = {key: [outputs.get(key) for outputs in every] for key in keys}
        is_told = any(row.result == TaskStatus.SUCCEEDED.value for row in self.rows)
        return lists if is_told else _AnyOutput(lists, len(self.rows))

    @property
    def fine(self) -> bool:
        if self._whole is not None:
            return is_fine(self._whole)
        return all(row.fine for row in self.rows)

    @property
    def failed(self) -> bool:
        if self._whole is not None:
            return has_failed(self._whole)
        return any(row.failed for row in self.rows)


def is_fine(outcome: Outcome) -> bool:
    """Whether success() counts an outcome as one."""
    return outcome.tolerated or outcome.result in (TaskStatus.SUCCEEDED, TaskStatus.CACHED)


def has_failed(outcome: Outcome) -> bool:
    """Whether failure() counts an outcome as one."""
    return outcome.result is TaskStatus.FAILED and not outcome.tolerated


@dataclass(frozen=True, slots=True)
class Member:
    """A row of a matrix, as those see it that need the whole."""

    id: FullId
    matrix: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GroupTarget:
    """The rows that the id of a matrix stands for; None where they are not known yet."""

    id: FullId
    members: tuple[Member, ...] | None


# The node, or the rows, of a name in `needs`.
Target: TypeAlias = "FullId | GroupTarget"


class RowsToCome(dict[str, Target]):
    """Targets of rows that are not known yet: any name may be their own main's."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Target:
        raise Unknowable


class NeedsContext(Mapping[str, Ended]):
    """`needs`: the dependencies of level completed."""

    __slots__ = ("_fine", "_outcomes", "_rows_of", "_targets")

    def __init__(
        self,
        targets: Mapping[str, Target],
        outcomes: Outcomes,
        rows_of: Callable[[FullId], tuple[Member, ...] | None],
    ) -> None:
        self._targets = targets
        self._outcomes = outcomes
        self._rows_of = rows_of
        self._fine: bool | None = None

    def are_of(self, targets: Mapping[str, Target], outcomes: Outcomes) -> bool:
        """Whether they were made of these very things."""
        return self._targets is targets and self._outcomes is outcomes

    def __getitem__(self, name: str) -> Ended:
        target = self._targets[name]
        if isinstance(target, GroupTarget):
            return self._group(target)
        return NeedRecord(self._outcomes.get(target))

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def all_fine(self) -> bool:
        """Whether every one of them is as success() wants it: asked once, as outcomes stay."""
        if self._fine is None:
            self._fine = all(self._all_fine(target) for target in self._targets.values())
        return self._fine

    def _all_fine(self, target: Target) -> bool:
        if not isinstance(target, GroupTarget):
            return self._is_fine(target)
        members = self._members(target)
        if members is None:
            return self._is_fine(target.id)
        return all(self._is_fine(member.id) for member in members)

    def _is_fine(self, one: FullId) -> bool:
        outcome = self._outcomes.get(one)
        if outcome is None:
            raise Unknowable
        return is_fine(outcome)

    def _members(self, target: GroupTarget) -> tuple[Member, ...] | None:
        return target.members if target.members is not None else self._rows_of(target.id)

    def _group(self, target: GroupTarget) -> GroupRecord:
        members = self._members(target)
        if members is None:
            whole = self._outcomes.get(target.id)
            if whole is None:
                raise Unknowable
            return GroupRecord([], whole)
        outcomes = self._outcomes
        return GroupRecord(
            [RowRecord(row.id[-1], row.matrix, outcomes.get(row.id)) for row in members]
        )
