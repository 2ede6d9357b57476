"""The ground that all evaluation of one bake shares, and the frames of its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.contexts import NeedsContext
from neuro.flow.evaluate.batch.values import BatchValues
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.model import NodeKind
from neuro.flow.problems import Report

if TYPE_CHECKING:
    from neuro.flow.evaluate.actions import Action
    from neuro.flow.evaluate.batch.contexts import (
        BatchFlowRecord,
        CommitRecord,
        Member,
        StrategyRecord,
        Target,
    )
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.batch.sources import Files
    from neuro.flow.evaluate.batch.values import HashCalls
    from neuro.flow.evaluate.contexts import ImageRecord
    from neuro.flow.evaluate.mixins import Mixins
    from neuro.flow.evaluate.sections import EvaluatedDefaults
    from neuro.flow.expressions.functions import Function
    from neuro.flow.model import CacheRule, FullId, Node, Outcomes
    from neuro.flow.syntax import tree

DEFAULT_MAX_PARALLEL = 10


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A definition of an image: where it stands, and what came of it."""

    yaml_id: FullId
    definition: tree.Image
    record: ImageRecord


@dataclass(slots=True)
class Ground:
    """Shared by every graph of a bake."""

    facts: Facts
    files: Files
    functions: Mapping[str, Function]
    flow: BatchFlowRecord
    git: CommitRecord
    flow_tags: tuple[str, ...]
    max_parallel: int
    # The rows that outputs have decided, by the id of their group.
    expanded: dict[FullId, tuple[Member, ...]] = field(default_factory=dict)
    # By the full ids of their definitions.
    images: dict[FullId, BuiltImage] = field(default_factory=dict)
    hashes: HashCalls | None = None
    last_needs: NeedsContext | None = None
    is_broken: bool = False
    """Whether something is wrong with the files already: what is missing from them is passed over.

    All that reads it would tell of it again.
    """

    def values(self, names: Mapping[str, object], report: Report) -> BatchValues:
        """Make what evaluates with some names."""
        told = Report() if self.is_broken else report
        return BatchValues(ExpressionScope(names, self.functions), told, self.hashes)

    def needs(self, targets: Mapping[str, Target], outcomes: Outcomes) -> NeedsContext:
        """Make the `needs` of a task, or give those of the last one where they are the same.

        The rows of a matrix come one after the other and share all that they need. To look at each
        of two hundred needs for each of two hundred rows takes four times as long as all the rest.
        """
        last = self.last_needs
        if last is None or not last.are_of(targets, outcomes):
            last = self.last_needs = NeedsContext(targets, outcomes, self.expanded.get)
        return last


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a list of tasks stands: the batch itself, or an opened call of an action."""

    prefix: FullId
    names: Mapping[str, object]
    """The names of `Stage.FILE`, and of the caller for a module."""
    strategy: StrategyRecord
    defaults: EvaluatedDefaults
    cache: CacheRule
    mixins: Mixins | None
    tasks: tuple[tree.Task | tree.TaskCall, ...]
    outputs: Mapping[str, tree.Output] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    """The references of the actions on the way here."""


@dataclass(slots=True)
class Element:
    """An element of a list of tasks: all that its rows share."""

    frame: Frame
    number: int
    task: tree.Task | tree.TaskCall
    kind: NodeKind
    action: Action | None
    strategy: StrategyRecord
    own_limit: int | None = None
    group: str | None = None
    decided: bool = True
    """Whether the rows are known; a GROUP stands for those that are not."""
    open: bool = False
    """Whether only the submission decides the rows, or their ids are wrong.

    While files are checked, nothing is given.
    """

    @property
    def name(self) -> str:
        """What to call it in a message."""
        own = self.task.id
        if self.group is None and own is not None and own.template is None:
            return str(own.constant)
        return self.group or f"task-{self.number}"

    @property
    def is_unread(self) -> bool:
        """Whether it calls an action whose file is not here, or could not be read."""
        return self.action is None and self.kind is NodeKind.CALL


@dataclass(frozen=True, slots=True)
class Place:
    """A node's `source`: what it is evaluated with."""

    element: Element
    matrix: Mapping[str, object]
    targets: Mapping[str, Target]
    is_post: bool = False

    @property
    def kind(self) -> NodeKind:
        """The kind of the node, or of its group's rows."""
        return NodeKind.POST if self.is_post else self.element.kind

    def names(
        self,
        ground: Ground,
        outcomes: Outcomes,
        state: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """The names of `Stage.TASK`."""
        names = self.early_names()
        names["needs"] = ground.needs(self.targets, outcomes)
        names["state"] = state if state is not None else {}
        return names

    def early_names(self) -> dict[str, object]:
        """The names of `Stage.ROW`: without outcomes."""
        element = self.element
        return {
            **element.frame.names,
            "strategy": element.strategy,
            "matrix": self.matrix,
        }


def place_of(node: Node) -> Place:
    """The place that a node is evaluated in."""
    assert isinstance(node.source, Place)
    return node.source
