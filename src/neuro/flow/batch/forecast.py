"""What would become of a batch's tasks: which an earlier outcome answers, which would run.

A task that is answered is as good as done: those that need it can be looked at next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from neuro.domain.bakes import CacheEntry, TaskStatus
from neuro.flow.batch.cache import is_fresh, key_of
from neuro.flow.batch.layers import in_order
from neuro.flow.model import (
    FullId,
    Level,
    Node,
    NodeKind,
    Outcome,
    ResolvedTask,
    join_id,
)
from neuro.flow.problems import FlowError, Report
from neuro.flow.syntax.types import ALWAYS

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.flow.batch.plan import Plan

_JOBS = (NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST)


class Future(StrEnum):
    """The outcome that a node will have."""

    RUNS = "runs"
    CACHED = "cached"
    SKIPPED = "skipped"
    OPEN = "open"  # outcomes of others decide


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one node. ``task`` is there for jobs; what outcomes decide of it is empty."""

    future: Future
    task: ResolvedTask | None = None
    entry: CacheEntry | None = None


async def forecast(
    client: Client | None, plan: Plan, project_id: str | None, now: datetime
) -> dict[str, Forecast]:
    """Look at every node in order. Without a client or project nothing is taken from before."""
    oracle = _Oracle(plan, client if project_id is not None else None, project_id or "", now)
    for full_id in in_order(plan.graphs):
        await oracle.look(full_id)
    return oracle.found


class _Oracle:
    def __init__(self, plan: Plan, client: Client | None, project_id: str, now: datetime) -> None:
        self.found: dict[str, Forecast] = {}
        self._plan = plan
        self._workflow = plan.workflow
        self._client = client
        self._project_id = project_id
        self._now = now
        self._nodes: dict[str, Node] = dict(plan.nodes)
        self._outcomes: dict[FullId, Outcome] = {}

    async def look(self, full_id: str) -> None:
        """Foretell a node, after all that it needs and the call that it is in."""
        node = self._nodes[full_id]
        around = self.found.get(join_id(node.id[:-1]))
        self.found[full_id] = await self._look(full_id, node, around)
        if self.found[full_id].future is Future.SKIPPED:
            self._outcomes[node.id] = Outcome(TaskStatus.SKIPPED)

    async def _look(self, full_id: str, node: Node, around: Forecast | None) -> Forecast:
        if around is not None and around.future is Future.SKIPPED:
            return Forecast(Future.SKIPPED, self._early(node))
        needs = [need for need, level in node.needs.items() if level is Level.COMPLETED]
        known = {need: outcome for need in needs if (outcome := self._outcome(need)) is not None}
        try:
            enable = self._workflow.enable(node, known)
            if enable is False:
                return Forecast(Future.SKIPPED, self._early(node))
            if len(known) < len(needs):
                early = self._early(node)
                is_sure = enable is ALWAYS and self._is_sure(node, early, around)
                return Forecast(Future.RUNS if is_sure else Future.OPEN, early)
            if node.kind is NodeKind.CALL:
                # Its arguments are known now, and so may be its graph.
                opened = self._workflow.open(node, known)
                self._nodes.update((join_id(it), inner) for it, inner in opened.nodes.items())
            if node.kind not in _JOBS:
                is_known = node.kind in (NodeKind.CALL, NodeKind.LOCAL)
                is_reached = around is None or around.future is Future.RUNS
                return Forecast(Future.RUNS if is_known and is_reached else Future.OPEN)
            task = self._workflow.task(node, known)
        except FlowError:
            return Forecast(Future.OPEN, self._early(node))  # It depends on an unknown value.
        entry = await self._earlier(full_id, node, task, known)
        if entry is not None:
            self._outcomes[node.id] = Outcome(TaskStatus.SUCCEEDED, entry.outputs, entry.state)
            return Forecast(Future.CACHED, task, entry)
        is_reached = around is None or around.future is Future.RUNS
        return Forecast(Future.RUNS if is_reached else Future.OPEN, task)

    def _outcome(self, full_id: FullId) -> Outcome | None:
        """How a node ends, where that is known; a call by what is in it."""
        node = self._nodes[join_id(full_id)]
        if full_id in self._outcomes or node.kind is not NodeKind.CALL:
            return self._outcomes.get(full_id)
        inner: dict[FullId, Outcome] = {}
        for name in self._plan.graphs.get(join_id(full_id), {}):
            outcome = self._outcome(self._nodes[name].id)
            if outcome is None:
                return None
            inner[self._nodes[name].id] = outcome
        try:
            outputs = self._workflow.outputs(node, inner)
        except FlowError:
            return None
        found = self._outcomes[full_id] = Outcome(TaskStatus.SUCCEEDED, outputs)
        return found

    def _is_sure(self, node: Node, task: ResolvedTask | None, around: Forecast | None) -> bool:
        """Whether a job that always runs does, however the ones end that it needs."""
        if task is None or (around is not None and around.future is not Future.RUNS):
            return False
        if node.kind is NodeKind.POST:
            # A skipped task has nothing to clean up.
            return node.main is not None and self.found[join_id(node.main)].future is Future.RUNS
        return self._client is None or not _is_kept(node, task)

    async def _earlier(
        self, full_id: str, node: Node, task: ResolvedTask, known: Mapping[FullId, Outcome]
    ) -> CacheEntry | None:
        if self._client is None or not _is_kept(node, task):
            return None
        key, batch = key_of(task, known), self._workflow.batch
        entry = await self._client.bakes.cache_entry(self._project_id, batch, full_id, key)
        return entry if entry is not None and is_fresh(entry, task.cache, self._now) else None

    def _early(self, node: Node) -> ResolvedTask | None:
        """A job as far as it is known before anything runs."""
        if node.kind not in _JOBS:
            return None
        report = Report()
        task = self._workflow.examine(node, report).task(None)
        return None if report.problems else task


def _is_kept(node: Node, task: ResolvedTask) -> bool:
    """Whether an earlier outcome is taken where there is one."""
    return node.kind is NodeKind.TASK and task.cache.strategy == "default"
