"""Parts of a bake's state: open graphs, nodes, needs that nodes have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from neuro.domain.bakes import TaskRequest, TaskStatus, TaskTransition
from neuro.domain.jobs import JobState
from neuro.flow.batch.cache import text_of
from neuro.flow.batch.phases import Event, Phase, after
from neuro.flow.batch.wording import failure_of
from neuro.flow.model import FullId, Level, Node, NodeKind, Outcome, ResolvedTask, join_id

JOB_KINDS = (NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST)
BAD = (TaskStatus.FAILED, TaskStatus.CANCELLED)

_LONGEST_MESSAGE = 16 << 10


@dataclass(slots=True, eq=False)
class Scope:
    """An open graph: the root's, or a call's."""

    prefix: FullId
    call: Item | None
    items: dict[FullId, Item] = field(default_factory=dict)
    joins: dict[int, Join] = field(default_factory=dict)
    unstarted: int = 0
    unfinished: int = 0
    failed: bool = False
    cancelled: bool = False
    skipped: bool = False
    cancelling: bool = False

    @property
    def is_cancelling(self) -> bool:
        """Whether this graph, or one around it, is being cancelled."""
        scope: Scope | None = self
        while scope is not None:
            if scope.cancelling:
                return True
            scope = scope.call.scope if scope.call is not None else None
        return False

    @property
    def is_forgiven(self) -> bool:
        """Whether a call around the graph may fail."""
        scope = self
        while (call := scope.call) is not None:
            if call.node.continue_on_error:
                return True
            scope = call.scope
        return False

    @property
    def first_failed(self) -> str | None:
        """What to say of a call whose graph this is, after it failed."""
        for item in self.items.values():
            if not item.is_tolerable:
                return f"{failure_of(item.text)}."
        return None


@dataclass(slots=True, eq=False)
class Join:
    """The needs that some nodes have in common, and how many of them are open."""

    needs: Mapping[FullId, Level]  # kept, so that its id stays its own
    open: int = 0
    items: list[Item] = field(default_factory=list)
    _outcomes: dict[FullId, Outcome] | None = None
    _text: str | None = None

    def outcomes(self, scope: Scope) -> dict[FullId, Outcome]:
        """What expressions may see; never changed once nothing is open. Rows come with groups."""
        if self._outcomes is None:
            found = self._outcomes = {}
            for need, level in self.needs.items():
                other = scope.items[need]
                if level is Level.COMPLETED and other.outcome is not None:
                    found[need] = other.outcome
                    for row in other.rows:
                        if row.outcome is not None:
                            found[row.node.id] = row.outcome
        return self._outcomes

    def text(self, scope: Scope) -> str:
        """The part of their cache keys that the nodes share."""
        if self._text is None:
            self._text = text_of(self.outcomes(scope))
        return self._text


@dataclass(slots=True, eq=False)
class Item:
    """A node, and what has become of it."""

    node: Node
    scope: Scope
    join: Join
    _phase: Phase = Phase.WAITING
    after_start: list[Join] = field(default_factory=list)
    after_end: list[Join] = field(default_factory=list)
    always: bool | None = None
    started: bool = False
    outcome: Outcome | None = None
    # Of a job.
    holds_place: bool = False
    task: ResolvedTask | None = None
    number: int = 0
    job_id: str | None = None
    job: JobState | None = None
    told_at: datetime | None = None  # when that was heard of
    killed: bool = False
    timed_out: bool = False
    # Of a row and of a group.
    group: Item | None = None
    rows: list[Item] = field(default_factory=list)
    rows_unstarted: int = 0
    rows_unfinished: int = 0
    # Of the record.
    statuses: list[TaskTransition] = field(default_factory=list)
    raw_id: str | None = None
    outputs: Mapping[str, str] | None = None
    state: Mapping[str, str] | None = None
    message: str | None = None

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        return self._phase

    def pass_on(self, event: Event) -> None:
        """Go on to the phase that an event leads to. Raises ImpossibleEvent."""
        self._phase = after(self._phase, event)

    @property
    def text(self) -> str:
        """The full id as records have it."""
        return join_id(self.node.id)

    @property
    def needs(self) -> dict[FullId, Outcome]:
        """The outcomes of what it needs."""
        return self.join.outcomes(self.scope)

    @property
    def main(self) -> Outcome | None:
        """How the main part ended that a POST belongs to."""
        if self.node.main is None:
            return None
        main = self.scope.items.get(self.node.main)
        return main.outcome if main is not None else None

    @property
    def is_cancelling(self) -> bool:
        """Whether a graph that it is in is being cancelled."""
        return self.scope.is_cancelling

    @property
    def is_tolerable(self) -> bool:
        """Whether it did not fail, or has continue_on_error."""
        outcome = self.outcome
        return outcome is None or outcome.tolerated or outcome.result is not TaskStatus.FAILED

    @property
    def is_kept(self) -> bool:
        """Whether an earlier outcome is taken, and a success kept."""
        task = self.task
        cached = task is not None and task.cache.strategy == "default"
        return cached and self.node.kind is NodeKind.TASK

    @property
    def was_unknown(self) -> bool:
        """Whether it, or a call around it, was not known when the bake was submitted."""
        found: Item | None = self
        while found is not None:
            if found.group is not None:
                return True
            found = found.scope.call
        return False

    def step(self, status: TaskStatus, at: datetime) -> None:
        """Add a step to the record; the times of steps never go back."""
        if self.statuses and self.statuses[-1].created_at > at:
            at = self.statuses[-1].created_at
        self.statuses.append(TaskTransition(created_at=at, status=status))

    def record(self, attempt_id: str, cache_key: str | None = None) -> TaskRequest:
        """The record as it is now; with ``cache_key`` its outcome is kept for later bakes."""
        return TaskRequest(
            attempt_id=attempt_id,
            yaml_id=self.text,
            raw_id=self.raw_id,
            outputs=None if self.outputs is None else dict(self.outputs),
            state=None if self.state is None else dict(self.state),
            statuses=list(self.statuses),
            message=None if self.message is None else self.message[:_LONGEST_MESSAGE],
            cache_key=cache_key,
        )


class Places:
    """The places within limits: who has one, and who queues for one."""

    def __init__(self) -> None:
        self._taken: dict[FullId, int] = {}
        self._queues: dict[FullId, deque[Item]] = {}
        self._freed: set[FullId] = set()

    def take(self, item: Item, *, anyhow: bool = False) -> bool:
        """Give an item a place, or let it queue. ``anyhow``: it had one before."""
        limit = item.node.limit
        if limit is None or item.holds_place:
            return True
        taken = self._taken.get(limit.key, 0)
        if taken >= limit.size and not anyhow:
            item.pass_on(Event.NO_PLACE)
            self._queues.setdefault(limit.key, deque()).append(item)
            return False
        self._taken[limit.key] = taken + 1
        item.holds_place = True
        return True

    def leave(self, item: Item) -> None:
        """Take an item's place, if it has one."""
        if item.holds_place:
            assert item.node.limit is not None
            item.holds_place = False
            self._taken[item.node.limit.key] -= 1
            self._freed.add(item.node.limit.key)

    def next(self) -> Item | None:
        """The next that queues where a place is free."""
        while self._freed:
            key = next(iter(self._freed))
            queue = self._queues.get(key)
            while queue:
                item = queue[0]
                # Others have been given up meanwhile.
                if item.phase is Phase.QUEUED:
                    assert item.node.limit is not None
                    if self._taken[key] >= item.node.limit.size:
                        break
                    return queue.popleft()
                queue.popleft()
            self._freed.discard(key)
        return None


def result_of(rows: Iterable[Item]) -> TaskStatus:
    """The result of a group: the worst of its rows'."""
    found = {row.outcome.result for row in rows if row.outcome is not None}
    for result in BAD:
        if result in found:
            return result
    return TaskStatus.SKIPPED if found == {TaskStatus.SKIPPED} else TaskStatus.SUCCEEDED
