"""The state of a bake's attempt as a machine without I/O and without a clock.

What happens goes in (a job's change, an answer, a timer, a cancellation, each with the time), and
what is to be done comes out of ``take``: see ``actions``. Given the records that an earlier
executor left, it continues where that one was: every decision follows from the workflow, the
records and the states of jobs, so what was not recorded is decided again in the same way, and a
job that was submitted is found again by its key (see ``requests.submission_key``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from neuro.domain.bakes import CacheEntry, Task, TaskRequest, TaskStatus, TaskTransition
from neuro.domain.durations import format_duration
from neuro.domain.jobs import JobState, JobStatus
from neuro.flow.batch.actions import (
    Action,
    Finish,
    Kill,
    LookUp,
    ReadLog,
    Record,
    Redraw,
    RunLocal,
    Submit,
)
from neuro.flow.batch.cache import is_fresh, key_with
from neuro.flow.batch.ends import ended, pause, pause_before_next
from neuro.flow.batch.items import (
    BAD,
    JOB_KINDS,
    Item,
    Phase,
    Places,
    Scope,
    result_of,
)
from neuro.flow.batch.model import (
    FullId,
    Graph,
    NodeKind,
    Outcome,
    ResolvedTask,
    Workflow,
    join_id,
)
from neuro.flow.batch.readiness import Readiness
from neuro.flow.batch.timers import Timer, Timers
from neuro.flow.batch.unclaimed import Unclaimed
from neuro.flow.syntax.problems import FlowError
from neuro.flow.syntax.types import ALWAYS

T = TypeVar("T")

_NOTHING: Mapping[str, str] = {}


class BakeState:
    """See the module's docstring.

    With ``local_phase`` only local commands run, and the calls around them open; the rest waits.
    ``life_span`` counts from when the first executor ``began``.
    """

    def __init__(
        self,
        workflow: Workflow,
        attempt_id: str,
        records: Iterable[Task] = (),
        *,
        local_phase: bool = False,
        life_span: timedelta | None = None,
        began: datetime | None = None,
    ) -> None:
        self._workflow = workflow
        self._attempt_id = attempt_id
        self._stored = {record.yaml_id: record for record in records}
        self._local_phase = local_phase
        self._life_span = life_span
        self._began = began
        self._actions: list[Action] = []
        self._readiness = Readiness()
        self._busy: dict[FullId, Item] = {}
        self._of_job: dict[str, Item] = {}
        self._unclaimed = Unclaimed()
        self._places = Places()
        self._timers = Timers()
        self._root: Scope | None = None
        self._cancelled = False
        self._over = False
        self._first_bad: str | None = None
        self._first_cancelled: str | None = None
        self.message: str | None = None

    # What is known.

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do than to say so."""
        return self._over

    @property
    def is_cancelling(self) -> bool:
        """Whether nothing but ALWAYS starts any more."""
        return self._root is not None and self._root.cancelling

    @property
    def next_wake(self) -> datetime | None:
        """When ``wake`` is to be called."""
        return self._timers.next

    def take(self) -> list[Action]:
        """What is to be done since the last call, in order."""
        taken, self._actions = self._actions, []
        return taken

    def wants(self, action: Submit) -> bool:
        """Whether a submission that was not sent yet is still wanted."""
        item = self._busy.get(action.id)
        return (
            item is not None
            and item.phase is Phase.SUBMITTING
            and item.number == action.number
            and not (item.is_cancelling and not self._is_always(item))
        )

    def active_jobs(self) -> list[str]:
        """The jobs that this attempt waits for."""
        return [id for id, item in self._of_job.items() if item.phase is Phase.ACTIVE]

    def stray_jobs(self, tag: str) -> list[str]:
        """Active jobs with this tag that belong to no record: what a lost executor left behind."""
        return self._unclaimed.strays(tag)

    # What happens.

    def start(self, now: datetime) -> None:
        """Open the root, and continue from the records."""
        if self._life_span is not None:
            self._timers.set((self._began or now) + self._life_span, Timer(None))
        self._root = self._open(self._workflow.root(), None)
        self._root.cancelling = self._cancelled
        self.wake(now)

    def cancel(self, now: datetime, message: str | None = None) -> None:
        """End what runs; from now on nothing but ALWAYS starts."""
        if self._over or self._cancelled:
            return
        self._cancelled = True
        self.message = message
        if self._root is not None:
            self._stop_scope(self._root, now)
            self._run(now)

    def job_changed(self, job: JobState, now: datetime) -> None:
        """A job is in another state, or in the one that was known."""
        item = self._of_job.get(job.id)
        if item is None:
            self._unclaimed.see(job)
        elif item.phase is Phase.ACTIVE and item.job_id == job.id:
            self._job_at(item, job, now)
            self._run(now)

    def job_gone(self, job_id: str, now: datetime) -> None:
        """The platform knows a job no more."""
        item = self._of_job.get(job_id)
        if item is not None and item.phase is Phase.ACTIVE:
            self._fail(item, f"Its job {job_id} is gone.", now)
            self._run(now)

    def submitted(self, id: FullId, number: int, job: JobState, now: datetime) -> None:
        """A try of a task is a job now."""
        item = self._busy.get(id)
        if item is None or item.phase is not Phase.SUBMITTING or item.number != number:
            return
        self._unclaimed.answered()
        item.job_id = item.raw_id = job.id
        item.message = None
        item.phase = Phase.ACTIVE
        self._of_job[job.id] = item
        item.step(TaskStatus.PENDING, job.created_at)
        self._write(item)
        newer = self._unclaimed.claim(job.id)
        self._job_at(item, job, now)
        if newer is not None and item.phase is Phase.ACTIVE:
            self._job_at(item, newer, now)
        if item.phase is Phase.ACTIVE and item.is_cancelling:
            self._kill(item)
        self._run(now)

    def refused(self, id: FullId, number: int, message: str, now: datetime) -> None:
        """The platform does not take a task, and would not another time."""
        item = self._busy.get(id)
        if item is not None and item.phase is Phase.SUBMITTING and item.number == number:
            self._unclaimed.answered()
            self._fail(item, message, now)
            self._run(now)

    def unsent(self, id: FullId, number: int, now: datetime) -> None:
        """A submission was not sent: see ``wants``."""
        item = self._busy.get(id)
        if item is None or item.phase is not Phase.SUBMITTING or item.number != number:
            return
        self._unclaimed.answered()
        if number > 1:
            self._give_up(item, now)
        else:
            self._skip(item, now)
        self._run(now)

    def cached(self, id: FullId, entry: CacheEntry, now: datetime) -> TaskRequest | None:
        """The record of a task that takes an earlier outcome; None where it is too old.

        It is to be kept before ``looked_up`` tells of it: a later look might find nothing, and what
        was made of the outcome by then could not be made again.
        """
        item = self._busy.get(id)
        if item is None or item.task is None or not is_fresh(entry, item.task.cache, now):
            return None
        return TaskRequest(
            attempt_id=self._attempt_id,
            yaml_id=join_id(id),
            raw_id=entry.raw_id or None,
            outputs=dict(entry.outputs),
            state=dict(entry.state),
            statuses=[TaskTransition(created_at=now, status=TaskStatus.CACHED)],
        )

    def looked_up(self, id: FullId, found: TaskRequest | None, now: datetime) -> None:
        """The answer to LookUp: the record that ``cached`` has made and that is kept, or None."""
        item = self._busy.get(id)
        if item is None or item.phase is not Phase.LOOKING:
            return
        if found is None:
            if item.is_cancelling and not self._is_always(item):
                self._skip(item, now)
            else:
                self._submit(item)
        else:
            item.raw_id = found.raw_id
            item.statuses = list(found.statuses)
            item.outputs, item.state = found.outputs or {}, found.state or {}
            self._end(item, TaskStatus.CACHED, now)
        self._run(now)

    def log_read(
        self,
        id: FullId,
        number: int,
        outputs: Mapping[str, str],
        state: Mapping[str, str],
        problem: str | None,
        now: datetime,
    ) -> None:
        """The answer to ReadLog: what the output's commands have set."""
        item = self._busy.get(id)
        if item is None or item.phase is not Phase.READING or item.number != number:
            return
        assert item.job is not None
        self._conclude(item, outputs, state, problem, now)
        self._run(now)

    def local_done(
        self,
        id: FullId,
        status: TaskStatus,
        outputs: Mapping[str, str],
        message: str | None,
        now: datetime,
    ) -> None:
        """The answer to RunLocal."""
        item = self._busy.get(id)
        if item is None or item.node.kind is not NodeKind.LOCAL:
            return
        item.outputs, item.state, item.message = dict(outputs), {}, message
        item.step(status, now)
        self._write(item)
        self._end(item, status, now)
        self._run(now)

    def wake(self, now: datetime) -> None:
        """Do what is due."""
        for timer in self._timers.due(now):
            self._due(timer, now)
        self._run(now)

    def _due(self, timer: Timer, now: datetime) -> None:
        if timer.id is None:
            assert self._life_span is not None
            span = format_duration(self._life_span)
            self.cancel(now, f"The bake's life span of {span} has ended.")
            return
        item = self._busy.get(timer.id)
        if item is None or item.number != timer.number or item.phase is not timer.phase:
            return
        if timer.phase is Phase.PAUSING:
            self._begin(item, now)
        else:
            item.timed_out = True
            self._kill(item, anyhow=True)

    # Graphs.

    def _open(self, graph: Graph, call: Item | None) -> Scope:
        scope = Scope(graph.prefix, call)
        self._readiness.add(scope, graph.nodes.values())
        return scope

    # The way of a node.

    def _run(self, now: datetime) -> None:
        """Work until nothing more follows from what has happened."""
        while True:
            while (item := self._readiness.next()) is not None:
                self._visit(item, now)
            queued = self._places.next()
            if queued is None:
                break
            self._begin(queued, now)
        root = self._root
        if root is not None and root.unfinished == 0 and not self._over:
            self._over = True
            self._actions.append(Finish(self._result(), self._why()))

    def _visit(self, item: Item, now: datetime) -> None:
        record = self._stored.pop(item.text, None)
        if record is not None and record.statuses:
            self._resume(item, record, now)
            return
        node = item.node
        if self._local_phase and node.kind not in (NodeKind.LOCAL, NodeKind.CALL):
            item.phase = Phase.WAITING
            return
        enable = self._evaluate(item, lambda: self._workflow.enable(node, item.needs), now)
        if enable is None:
            return
        item.always = enable is ALWAYS
        if enable is False or (not item.always and item.is_cancelling):
            self._skip(item, now)
        else:
            self._busy[node.id] = item
            self._begin(item, now)

    def _evaluate(self, item: Item, evaluate: Callable[[], T], now: datetime) -> T | None:
        """What the workflow says; where it raises, the node has failed, and this is None."""
        try:
            return evaluate()
        except FlowError as error:
            self._fail(item, str(error), now)
        except Exception as error:  # One task's trouble is never the whole bake's.
            self._fail(item, f"{type(error).__name__}: {error}", now)
        return None

    def _begin(self, item: Item, now: datetime) -> None:
        node = item.node
        if node.kind is NodeKind.GROUP:
            self._expand(item, now)
        elif node.kind is NodeKind.LOCAL:
            self._begin_local(item, now)
        elif self._places.take(item):
            if node.kind is NodeKind.CALL:
                self._call(item, now)
            else:
                self._prepare(item, now)

    def _prepare(self, item: Item, now: datetime) -> None:
        if item.task is None:
            item.task = self._evaluate(item, lambda: self._resolve(item), now)
        if item.task is None:
            return
        item.number += 1
        if item.number == 1 and item.is_kept:
            item.phase = Phase.LOOKING
            key = key_with(item.task, item.join.text(item.scope))
            self._actions.append(LookUp(item.node.id, item.task, key))
        else:
            self._submit(item)

    def _resolve(self, item: Item) -> ResolvedTask:
        main = item.main
        state = main.state if main is not None else None
        return self._workflow.task(item.node, item.needs, state)

    def _submit(self, item: Item) -> None:
        assert item.task is not None
        item.phase = Phase.SUBMITTING
        item.killed = item.timed_out = False
        self._unclaimed.asked()
        self._actions.append(Submit(item.node.id, item.number, item.task))

    def _begin_local(self, item: Item, now: datetime) -> None:
        if not self._local_phase:
            self._fail(
                item,
                "A local action runs on the machine that submits the bake: start the bake there.",
                now,
            )
            return
        node = item.node
        command = self._evaluate(item, lambda: self._workflow.local(node, item.needs), now)
        if command is None:
            return
        self._mark_open(item, now)
        self._actions.append(RunLocal(command))

    def _mark_open(self, item: Item, now: datetime) -> None:
        """Something goes on that is no job; its record may tell so already."""
        item.phase = Phase.OPEN
        if not item.statuses:
            item.step(TaskStatus.PENDING, now)
            self._write(item)

    def _call(self, item: Item, now: datetime) -> None:
        node = item.node
        graph = self._evaluate(item, lambda: self._workflow.open(node, item.needs), now)
        if graph is None:
            return
        self._mark_open(item, now)
        scope = self._open(graph, item)
        if item.was_unknown:
            self._redraw(scope)
        if scope.unfinished == 0:
            self._finish_call(scope, now)

    def _expand(self, item: Item, now: datetime) -> None:
        node = item.node
        rows = self._evaluate(item, lambda: self._workflow.expand(node, item.needs), now)
        if rows is None:
            return
        item.phase = Phase.OPEN
        added = self._readiness.add(item.scope, rows)
        item.rows = [row for row in added if row.node.group == node.id]
        item.rows_unstarted = item.rows_unfinished = len(item.rows)
        for row in item.rows:
            row.group = item
        self._redraw(item.scope)
        if not item.rows:
            self._end(item, TaskStatus.SUCCEEDED, now)

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
        self._actions.append(Redraw(scope.prefix, graph))

    # The way of a job.

    def _job_at(self, item: Item, job: JobState, now: datetime) -> None:
        is_over, is_running = job.status.is_finished, job.status is JobStatus.RUNNING
        has_run = is_running or (is_over and job.started_at is not None)
        if has_run and item.statuses[-1].status is not TaskStatus.RUNNING:
            item.step(TaskStatus.RUNNING, job.started_at or now)
            if not is_over:
                self._write(item)
        if is_running or is_over:
            self._reach_start(item)
        if not is_over:
            task, known = item.task, item.job
            if (
                is_running
                and task is not None
                and task.timeout is not None
                and (known is None or known.id != job.id or known.started_at != job.started_at)
            ):
                # Not before it was last seen waiting: the server's clock may be another than ours.
                was_waiting = known is not None and known.status is JobStatus.PENDING
                earliest = item.told_at if was_waiting else job.started_at
                since = min(max(job.started_at or now, earliest or now), now)
                timer = Timer(item.node.id, item.number, Phase.ACTIVE)
                self._timers.set(since + pause(task.timeout), timer)
            item.job, item.told_at = job, now
            return
        item.job = job
        self._job_over(item, job, now)

    def _job_over(self, item: Item, job: JobState, now: datetime) -> None:
        self._places.leave(item)
        self._of_job.pop(job.id, None)
        status, message = _ended(item, job)
        if status is TaskStatus.FAILED and self._has_another_try(item):
            task = item.task
            assert task is not None
            retry = task.retry
            item.phase = Phase.PAUSING
            item.message = f"Try {item.number} of {retry.attempts}: {message}"
            self._write(item)
            moment = min(job.finished_at or now, now) + pause_before_next(retry, item.number)
            self._timers.set(moment, Timer(item.node.id, item.number, Phase.PAUSING))
            return
        self._read(item, job, now)

    def _has_another_try(self, item: Item) -> bool:
        task = item.task
        if task is None or item.number >= task.retry.attempts:
            return False
        return not item.is_cancelling or self._is_always(item)

    def _conclude(
        self,
        item: Item,
        outputs: Mapping[str, str],
        state: Mapping[str, str],
        problem: str | None,
        now: datetime,
    ) -> None:
        job = item.job
        assert job is not None
        status, message = _ended(item, job)
        if problem is not None and status is TaskStatus.SUCCEEDED:
            status, message = TaskStatus.FAILED, problem
        if status is TaskStatus.FAILED and item.number > 1:
            message = f"{message} (try {item.number})"
        if status is TaskStatus.FAILED and message is not None:
            message = _forgiven(item, message)
        item.outputs, item.state, item.message = dict(outputs), dict(state), message
        item.step(status, job.finished_at or now)
        key = None
        if status is TaskStatus.SUCCEEDED and item.is_kept:
            assert item.task is not None
            key = key_with(item.task, item.join.text(item.scope))
        self._write(item, key)
        self._end(item, status, now)

    def _give_up(self, item: Item, now: datetime) -> None:
        """Take the failure of the last try as the task's own."""
        assert item.job is not None
        self._read(item, item.job, now)

    def _read(self, item: Item, job: JobState, now: datetime) -> None:
        item.phase = Phase.READING
        if job.log_bytes == 0:
            self._conclude(item, _NOTHING, _NOTHING, None, now)
        else:
            self._actions.append(ReadLog(item.node.id, item.number, job.id))

    def _kill(self, item: Item, *, anyhow: bool = False) -> None:
        if item.job_id is None or item.killed:
            return
        if anyhow or not self._is_always(item):
            item.killed = True
            self._actions.append(Kill(item.job_id))

    # Ends.

    def _skip(self, item: Item, now: datetime) -> None:
        item.outputs, item.state = {}, {}
        item.step(TaskStatus.SKIPPED, now)
        self._write(item)
        self._end(item, TaskStatus.SKIPPED, now)

    def _fail(self, item: Item, message: str, now: datetime) -> None:
        item.message = _forgiven(item, message)
        item.step(TaskStatus.FAILED, now)
        self._write(item)
        self._end(item, TaskStatus.FAILED, now)

    def _end(self, item: Item, status: TaskStatus, now: datetime) -> None:
        """All that follows from a node's end, its record being written."""
        node, scope = item.node, item.scope
        self._places.leave(item)
        item.phase = Phase.DONE
        self._busy.pop(node.id, None)
        if item.job_id is not None:
            self._of_job.pop(item.job_id, None)
        result = TaskStatus.SUCCEEDED if status is TaskStatus.CACHED else status
        tolerated = result is TaskStatus.FAILED and (
            node.continue_on_error if not item.rows else all(row.is_tolerable for row in item.rows)
        )
        item.outcome = Outcome(
            result,
            dict(item.outputs) if item.outputs else _NOTHING,
            dict(item.state) if item.state else _NOTHING,
            tolerated,
        )
        # What is not needed any more, of thousands.
        item.task = None
        item.job = None
        item.statuses = item.statuses[-1:]
        if not item.rows:
            self._mark(item, result, tolerated)
        self._reach_start(item)
        self._readiness.close(item.after_end)
        scope.unfinished -= 1
        if not item.rows and result in BAD and not tolerated and node.fail_fast:
            self._fail_fast(scope, now)
        group = item.group
        if group is not None:
            group.rows_unfinished -= 1
            if group.rows_unfinished == 0:
                self._end(group, result_of(group.rows), now)
        if scope.unfinished == 0 and scope.call is not None:
            self._finish_call(scope, now)

    def _mark(self, item: Item, result: TaskStatus, tolerated: bool) -> None:
        scope = item.scope
        if result is TaskStatus.SKIPPED:
            scope.skipped = True
        elif result is TaskStatus.CANCELLED:
            scope.cancelled = True
        elif result is TaskStatus.FAILED and not tolerated:
            scope.failed = True
        else:
            return
        why = f": {item.message.splitlines()[0]}" if item.message else "."
        if result is TaskStatus.FAILED and self._first_bad is None and not scope.is_forgiven:
            self._first_bad = f"Task {item.text} failed{why}"
        elif result is TaskStatus.CANCELLED and self._first_cancelled is None and item.message:
            self._first_cancelled = f"Task {item.text} was cancelled{why}"

    def _reach_start(self, item: Item) -> None:
        if item.started:
            return
        item.started = True
        self._readiness.close(item.after_start)
        group = item.group
        if group is not None:
            group.rows_unstarted -= 1
            if group.rows_unstarted == 0:
                self._reach_start(group)
        scope = item.scope
        scope.unstarted -= 1
        call = scope.call
        if scope.unstarted == 0 and call is not None and call.phase is Phase.OPEN:
            self._call_runs(call, item)
            self._reach_start(call)

    def _call_runs(self, call: Item, inner: Item) -> None:
        if call.statuses and call.statuses[-1].status is TaskStatus.RUNNING:
            return
        last = inner.statuses[-1].created_at if inner.statuses else call.statuses[-1].created_at
        call.step(TaskStatus.RUNNING, last)
        self._write(call)

    def _finish_call(self, scope: Scope, now: datetime) -> None:
        call = scope.call
        if call is None or call.phase is not Phase.OPEN:
            return
        stopped = scope.skipped and scope.is_cancelling
        outputs: dict[str, str] | None = {}
        if scope.failed:
            status = TaskStatus.FAILED
            call.message = scope.first_failed
        elif scope.cancelled or stopped:
            status = TaskStatus.CANCELLED
        else:
            inner = {
                id: item.outcome for id, item in scope.items.items() if item.outcome is not None
            }
            node = call.node
            outputs = self._evaluate(call, lambda: self._workflow.outputs(node, inner), now)
            if outputs is None:
                return
            status = TaskStatus.SUCCEEDED
        call.outputs, call.state = outputs, {}
        call.step(status, now)
        self._write(call)
        self._end(call, status, now)

    # Cancelling.

    def _fail_fast(self, scope: Scope, now: datetime) -> None:
        """Stop the bake; within a call whose failure is tolerated, that call alone."""
        while (call := scope.call) is not None and not call.node.continue_on_error:
            scope = call.scope
        self._stop_scope(scope, now)

    def _stop_scope(self, scope: Scope, now: datetime) -> None:
        if scope.cancelling:
            return
        scope.cancelling = True
        for item in list(self._busy.values()):
            if item.phase is Phase.DONE or not item.is_cancelling:
                continue
            if item.phase is Phase.ACTIVE:
                self._kill(item)
            elif item.phase is Phase.QUEUED and not self._is_always(item):
                if item.number > 0:
                    self._give_up(item, now)
                else:
                    self._skip(item, now)
            elif item.phase is Phase.PAUSING and not self._is_always(item):
                self._give_up(item, now)

    def _is_always(self, item: Item) -> bool:
        if item.always is None:
            try:
                enable = self._workflow.enable(item.node, item.needs)
            except Exception:  # It could be evaluated when it was started.
                enable = True
            item.always = enable is ALWAYS
        return item.always

    # Records.

    def _resume(self, item: Item, record: Task, now: datetime) -> None:
        node = item.node
        item.statuses = list(record.statuses)
        item.raw_id = record.raw_id
        item.outputs, item.state = record.outputs, record.state
        item.message = record.message
        status = record.status
        if status.is_finished:
            self._end(item, status, now)
            return
        self._busy[node.id] = item
        if node.kind not in JOB_KINDS:
            if node.kind is NodeKind.CALL:
                self._places.take(item, anyhow=True)
            self._begin(item, now)
            return
        tries = sum(step.status is TaskStatus.PENDING for step in record.statuses)
        if record.raw_id is None or tries == 0:
            item.statuses = []
            self._begin(item, now)
            return
        try:
            item.task = self._resolve(item)
        except Exception:  # It was evaluated once: what is left is to see its job's end.
            item.task = None
        self._places.take(item, anyhow=True)
        item.number = tries
        item.job_id = record.raw_id
        item.phase = Phase.ACTIVE
        self._of_job[record.raw_id] = item
        if any(step.status is TaskStatus.RUNNING for step in record.statuses):
            self._reach_start(item)
        known = self._unclaimed.claim(record.raw_id)
        if known is not None:
            self._job_at(item, known, now)
        if item.phase is Phase.ACTIVE and item.is_cancelling:
            self._kill(item)

    def _write(self, item: Item, cache_key: str | None = None) -> None:
        self._actions.append(Record(item.record(self._attempt_id, cache_key)))

    def _result(self) -> TaskStatus:
        root = self._root
        assert root is not None
        if self._cancelled:
            return TaskStatus.CANCELLED
        if root.failed:
            return TaskStatus.FAILED
        return TaskStatus.CANCELLED if root.cancelled else TaskStatus.SUCCEEDED

    def _why(self) -> str | None:
        if self.message is not None or self._cancelled:
            return self.message
        is_bad = self._result() is TaskStatus.FAILED
        return self._first_bad if is_bad else self._first_cancelled


def _forgiven(item: Item, message: str) -> str:
    """Why a task failed, and that nothing else minds where that is so."""
    if not item.node.continue_on_error:
        return message
    what, newline, where = message.partition("\n")
    return f"{what}; it may fail{newline}{where}"


def _ended(item: Item, job: JobState) -> tuple[TaskStatus, str | None]:
    timeout = item.task.timeout if item.task is not None else None
    is_ours = item.killed or item.is_cancelling
    return ended(job, timeout, timed_out=item.timed_out, is_ours=is_ours)
