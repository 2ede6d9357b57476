"""How nodes of a bake begin: what is ready is looked at, opens, expands, or becomes a job.

Pure: a part of ``state.BakeState``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from neuro.domain.bakes import Task, TaskStatus
from neuro.flow.batch.cache import key_with
from neuro.flow.batch.endings import Endings
from neuro.flow.batch.instructions import LookUp, Redraw, RunLocal
from neuro.flow.batch.items import JOB_KINDS, Item, Scope
from neuro.flow.batch.phases import Event
from neuro.flow.batch.tries import Tries
from neuro.flow.batch.work import Work
from neuro.flow.model import FullId, Graph, NodeKind, ResolvedTask
from neuro.flow.syntax.types import ALWAYS


class Beginnings:
    """Begins nodes, or continues them where a record of an earlier executor tells of them."""

    def __init__(
        self,
        work: Work,
        endings: Endings,
        tries: Tries,
        records: Iterable[Task],
        *,
        local_phase: bool,
    ) -> None:
        self._work = work
        self._endings = endings
        self._tries = tries
        self._stored = {record.yaml_id: record for record in records}
        self._local_phase = local_phase

    def open(self, graph: Graph, call: Item | None) -> Scope:
        """Have the nodes of a graph looked at, each when it is ready."""
        scope = Scope(graph.prefix, call)
        self._work.readiness.add(scope, graph.nodes.values())
        return scope

    def run(self, now: datetime) -> None:
        """Begin what can begin, until nothing more follows from that."""
        work = self._work
        while True:
            while (item := work.readiness.next()) is not None:
                self._visit(item, now)
            queued = work.places.next()
            if queued is None:
                break
            self.begin(queued, now)

    def _visit(self, item: Item, now: datetime) -> None:
        record = self._stored.pop(item.text, None)
        if record is not None and record.statuses:
            self._resume(item, record, now)
            return
        node, work = item.node, self._work
        if self._local_phase and node.kind not in (NodeKind.LOCAL, NodeKind.CALL):
            item.pass_on(Event.PUT_OFF)
            return
        enable = self._endings.evaluated(item, lambda: work.workflow.enable(node, item.needs), now)
        if enable is None:
            return
        item.always = enable is ALWAYS
        if enable is False or (not item.always and item.is_cancelling):
            self._endings.skip(item, now)
        else:
            work.busy[node.id] = item
            self.begin(item, now)

    def begin(self, item: Item, now: datetime) -> None:
        """Begin a node, for the first time or with its next try, as soon as there is a place."""
        node = item.node
        if node.kind is NodeKind.GROUP:
            self._expand(item, now)
        elif node.kind is NodeKind.LOCAL:
            self._begin_local(item, now)
        elif self._work.places.take(item):
            if node.kind is NodeKind.CALL:
                self._call(item, now)
            else:
                self._prepare(item, now)

    # Jobs.

    def _prepare(self, item: Item, now: datetime) -> None:
        if item.task is None:
            item.task = self._endings.evaluated(item, lambda: self._resolve(item), now)
        if item.task is None:
            return
        item.number += 1
        if item.number == 1 and item.is_kept:
            item.pass_on(Event.LOOK_UP)
            key = key_with(item.task, item.join.text(item.scope))
            self._work.ask(LookUp(item.node.id, item.task, key))
        else:
            self._tries.submit(item)

    def _resolve(self, item: Item) -> ResolvedTask:
        main = item.main
        state = main.state if main is not None else None
        return self._work.workflow.task(item.node, item.needs, state)

    # Local commands.

    def _begin_local(self, item: Item, now: datetime) -> None:
        if not self._local_phase:
            self._endings.fail(
                item,
                "A local action runs on the machine that submits the bake: start the bake there.",
                now,
            )
            return
        node, workflow = item.node, self._work.workflow
        command = self._endings.evaluated(item, lambda: workflow.local(node, item.needs), now)
        if command is None:
            return
        self._mark_open(item, now)
        self._work.ask(RunLocal(command))

    def _mark_open(self, item: Item, now: datetime) -> None:
        """Mark something that is not a job as running, unless its record says so already."""
        item.pass_on(Event.OPEN)
        if not item.statuses:
            item.step(TaskStatus.PENDING, now)
            self._work.write(item)

    # Calls and groups.

    def _call(self, item: Item, now: datetime) -> None:
        node, workflow = item.node, self._work.workflow
        graph = self._endings.evaluated(item, lambda: workflow.open(node, item.needs), now)
        if graph is None:
            return
        self._mark_open(item, now)
        scope = self.open(graph, item)
        if item.was_unknown:
            self._redraw(scope)
        if scope.unfinished == 0:
            self._endings.finish_call(scope, now)

    def _expand(self, item: Item, now: datetime) -> None:
        node, work = item.node, self._work
        rows = self._endings.evaluated(item, lambda: work.workflow.expand(node, item.needs), now)
        if rows is None:
            return
        item.pass_on(Event.OPEN)
        added = work.readiness.add(item.scope, rows)
        item.rows = [row for row in added if row.node.group == node.id]
        item.rows_unstarted = item.rows_unfinished = len(item.rows)
        for row in item.rows:
            row.group = item
        self._redraw(item.scope)
        if not item.rows:
            self._endings.end(item, TaskStatus.SUCCEEDED, now)

    def _redraw(self, scope: Scope) -> None:
        graph: dict[FullId, tuple[FullId, ...]] = {}
        for id, item in scope.items.items():
            if item.node.kind is NodeKind.GROUP and item.rows:
                continue
            needs: list[FullId] = []
            for need in item.join.needs:
                other = scope.items[need]
                needs += [row.node.id for row in other.rows] or [need]
            graph[id] = tuple(needs)
        self._work.ask(Redraw(scope.prefix, graph))

    # Records.

    def _resume(self, item: Item, record: Task, now: datetime) -> None:
        node, work = item.node, self._work
        item.statuses = list(record.statuses)
        item.raw_id = record.raw_id
        item.outputs, item.state = record.outputs, record.state
        item.message = record.message
        status = record.status
        if status.is_finished:
            self._endings.end(item, status, now)
            return
        work.busy[node.id] = item
        if node.kind not in JOB_KINDS:
            if node.kind is NodeKind.CALL:
                work.places.take(item, anyhow=True)
            self.begin(item, now)
            return
        tries = sum(step.status is TaskStatus.PENDING for step in record.statuses)
        if record.raw_id is None or tries == 0:
            item.statuses = []
            self.begin(item, now)
            return
        try:
            item.task = self._resolve(item)
        except Exception:  # It was evaluated once: what is left is to see its job's end.
            item.task = None
        self._tries.resume(item, record.raw_id, tries, now)
