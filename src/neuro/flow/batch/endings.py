"""How nodes of a bake end, and all that follows from an end: who may begin, and who is stopped.

Pure: a part of ``state.BakeState``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from neuro.domain.bakes import TaskStatus
from neuro.domain.jobs import JobState
from neuro.flow.batch.cache import key_with
from neuro.flow.batch.instructions import ReadLog
from neuro.flow.batch.items import BAD, Item, Scope, result_of
from neuro.flow.batch.job_ends import ended
from neuro.flow.batch.phases import Event, Phase
from neuro.flow.batch.verdict import Verdict
from neuro.flow.batch.wording import forgiven
from neuro.flow.batch.work import Work
from neuro.flow.model import Outcome
from neuro.flow.problems import FlowError

T = TypeVar("T")

_NOTHING: Mapping[str, str] = {}


class Endings:
    """Ends nodes, the groups and calls that they are the last of, and what must stop for them."""

    def __init__(self, work: Work, verdict: Verdict) -> None:
        self._work = work
        self._verdict = verdict

    # Of nodes that did not run, or could not.

    def skip(self, item: Item, now: datetime) -> None:
        """A node does not run."""
        item.outputs, item.state = {}, {}
        item.step(TaskStatus.SKIPPED, now)
        self._work.write(item)
        self.end(item, TaskStatus.SKIPPED, now)

    def fail(self, item: Item, message: str, now: datetime) -> None:
        """A node has failed, without or with a job."""
        item.message = _said_of(item, message)
        item.step(TaskStatus.FAILED, now)
        self._work.write(item)
        self.end(item, TaskStatus.FAILED, now)

    def evaluated(self, item: Item, evaluate: Callable[[], T], now: datetime) -> T | None:
        """Evaluate with the workflow; None where it raises, which makes the node fail."""
        try:
            return evaluate()
        except FlowError as error:
            self.fail(item, str(error), now)
        except Exception as error:  # One task's trouble is never the whole bake's.
            self.fail(item, f"{type(error).__name__}: {error}", now)
        return None

    # Of jobs.

    def give_up(self, item: Item, now: datetime) -> None:
        """Take the failure of the last try as the task's own."""
        assert item.job is not None
        self.read(item, item.job, Event.GIVE_UP, now)

    def read(self, item: Item, job: JobState, event: Event, now: datetime) -> None:
        """See what the output of a job that is over has set; then the task ends."""
        item.pass_on(event)
        if job.log_bytes == 0:
            self.conclude(item, _NOTHING, _NOTHING, None, now)
        else:
            self._work.ask(ReadLog(item.node.id, item.number, job.id))

    def conclude(
        self,
        item: Item,
        outputs: Mapping[str, str],
        state: Mapping[str, str],
        problem: str | None,
        now: datetime,
    ) -> None:
        """End a task whose job is over and whose output is read."""
        job = item.job
        assert job is not None
        status, message = ended_as(item, job)
        if problem is not None and status is TaskStatus.SUCCEEDED:
            status, message = TaskStatus.FAILED, problem
        if status is TaskStatus.FAILED and item.number > 1:
            message = f"{message} (try {item.number})"
        if status is TaskStatus.FAILED and message is not None:
            message = _said_of(item, message)
        item.outputs, item.state, item.message = dict(outputs), dict(state), message
        item.step(status, job.finished_at or now)
        key = None
        if status is TaskStatus.SUCCEEDED and item.is_kept:
            assert item.task is not None
            key = key_with(item.task, item.join.text(item.scope))
        self._work.write(item, key)
        self.end(item, status, now)

    # Consequences.

    def end(self, item: Item, status: TaskStatus, now: datetime) -> None:
        """All that follows from a node's end, its record being written."""
        node, scope, work = item.node, item.scope, self._work
        work.places.leave(item)
        item.pass_on(Event.END)
        work.busy.pop(node.id, None)
        if item.job_id is not None:
            work.of_job.pop(item.job_id, None)
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
        # Thousands of nodes keep nothing that they do not need any more.
        item.task = None
        item.job = None
        item.statuses = item.statuses[-1:]
        if not item.rows:
            self._mark(item, result, tolerated)
        self.reach_start(item)
        work.readiness.close(item.after_end)
        scope.unfinished -= 1
        if not item.rows and result in BAD and not tolerated and node.fail_fast:
            self._fail_fast(scope, now)
        group = item.group
        if group is not None:
            group.rows_unfinished -= 1
            if group.rows_unfinished == 0:
                self.end(group, result_of(group.rows), now)
        if scope.unfinished == 0 and scope.call is not None:
            self.finish_call(scope, now)

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
        self._verdict.note(item, result)

    def reach_start(self, item: Item) -> None:
        """A node runs, or has ended without: what needed that much may begin."""
        if item.started:
            return
        item.started = True
        self._work.readiness.close(item.after_start)
        group = item.group
        if group is not None:
            group.rows_unstarted -= 1
            if group.rows_unstarted == 0:
                self.reach_start(group)
        scope = item.scope
        scope.unstarted -= 1
        call = scope.call
        if scope.unstarted == 0 and call is not None and call.phase is Phase.OPEN:
            self._call_runs(call, item)
            self.reach_start(call)

    def _call_runs(self, call: Item, inner: Item) -> None:
        if call.statuses and call.statuses[-1].status is TaskStatus.RUNNING:
            return
        last = inner.statuses[-1].created_at if inner.statuses else call.statuses[-1].created_at
        call.step(TaskStatus.RUNNING, last)
        self._work.write(call)

    def finish_call(self, scope: Scope, now: datetime) -> None:
        """The last node of a call's graph has ended: so has the call."""
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
            node, workflow = call.node, self._work.workflow
            outputs = self.evaluated(call, lambda: workflow.outputs(node, inner), now)
            if outputs is None:
                return
            status = TaskStatus.SUCCEEDED
        call.outputs, call.state = outputs, {}
        call.step(status, now)
        self._work.write(call)
        self.end(call, status, now)

    # Stops.

    def _fail_fast(self, scope: Scope, now: datetime) -> None:
        """Stop the bake; within a call whose failure is tolerated, that call alone."""
        while (call := scope.call) is not None and not call.node.continue_on_error:
            scope = call.scope
        self.stop(scope, now)

    def stop(self, scope: Scope, now: datetime) -> None:
        """End what runs in a graph; from now on nothing but ALWAYS starts there."""
        if scope.cancelling:
            return
        scope.cancelling = True
        work = self._work
        for item in list(work.busy.values()):
            if item.phase is Phase.DONE or not item.is_cancelling:
                continue
            if item.phase is Phase.ACTIVE:
                work.kill(item)
            elif item.phase is Phase.QUEUED and not work.is_always(item):
                if item.number > 0:
                    self.give_up(item, now)
                else:
                    self.skip(item, now)
            elif item.phase is Phase.PAUSING and not work.is_always(item):
                self.give_up(item, now)


def ended_as(item: Item, job: JobState) -> tuple[TaskStatus, str | None]:
    """The status of a task whose job is over, and why."""
    timeout = item.task.timeout if item.task is not None else None
    is_ours = item.killed or item.is_cancelling
    return ended(job, timeout, timed_out=item.timed_out, is_ours=is_ours)


def _said_of(item: Item, message: str) -> str:
    """Why a task failed, and that nothing else minds where that is so."""
    return forgiven(message) if item.node.continue_on_error else message
