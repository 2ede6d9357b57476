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
from neuro.flow.batch.model import FullId, Level, Node, NodeKind, Outcome, ResolvedTask
from neuro.flow.syntax.problems import FlowError, Report

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.flow.batch.plan import Plan

_JOBS = (NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST)


class Future(StrEnum):
    """What becomes of a node."""

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
    outcomes: dict[FullId, Outcome] = {}
    found: dict[str, Forecast] = {}
    for full_id in in_order(plan.graphs):
        node = plan.nodes[full_id]
        needs = _completed(node)
        known = {need: outcomes[need] for need in needs if need in outcomes}
        one = _alone(plan, node, known, complete=len(known) == len(needs))
        if one.future is Future.RUNS and client is not None and project_id is not None:
            entry = await _earlier(client, plan, project_id, full_id, node, one, known, now)
            if entry is not None:
                one = Forecast(Future.CACHED, one.task, entry)
                outcomes[node.id] = Outcome(TaskStatus.SUCCEEDED, entry.outputs, entry.state)
        if one.future is Future.SKIPPED:
            outcomes[node.id] = Outcome(TaskStatus.SKIPPED)
        found[full_id] = one
    return found


def _completed(node: Node) -> list[FullId]:
    """What an expression of a node may read."""
    return [need for need, level in node.needs.items() if level is Level.COMPLETED]


def _alone(plan: Plan, node: Node, known: Mapping[FullId, Outcome], *, complete: bool) -> Forecast:
    """A node by itself. Some are skipped whatever becomes of their needs."""
    try:
        if plan.workflow.enable(node, known) is False:
            return Forecast(Future.SKIPPED, _early(plan, node))
        if complete and node.kind in _JOBS:
            return Forecast(Future.RUNS, plan.workflow.task(node, known))
    except FlowError:
        pass  # It reads what is not known yet.
    return Forecast(Future.OPEN, _early(plan, node))


async def _earlier(
    client: Client,
    plan: Plan,
    project_id: str,
    full_id: str,
    node: Node,
    one: Forecast,
    known: Mapping[FullId, Outcome],
    now: datetime,
) -> CacheEntry | None:
    task = one.task
    if task is None or node.kind is not NodeKind.TASK or task.cache.strategy != "default":
        return None
    key = key_of(task, known, {})
    entry = await client.bakes.cache_entry(project_id, plan.workflow.batch, full_id, key)
    return entry if entry is not None and is_fresh(entry, task.cache, now) else None


def _early(plan: Plan, node: Node) -> ResolvedTask | None:
    """A job as far as it is known before anything runs."""
    if node.kind not in _JOBS:
        return None
    report = Report()
    task = plan.workflow.examine(node, report).task(None)
    return None if report.problems else task
