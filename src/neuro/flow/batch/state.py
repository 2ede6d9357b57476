"""The state of a bake's attempt as a machine without I/O and without a clock.

Events go in (a job's change, an answer, a timer, a cancellation, each with the time), and
``instructions`` come out of ``take``. Given the records that an earlier executor left, it
continues where that one was: every decision follows from the workflow, the
records and the states of jobs, so what was not recorded is decided again in the same way, and a
job that was submitted is found again by its key (see ``requests.submission_key``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from neuro.domain.bakes import CacheEntry, Task, TaskRequest, TaskStatus, TaskTransition
from neuro.domain.durations import format_duration
from neuro.domain.jobs import JobState
from neuro.flow.batch.beginnings import Beginnings
from neuro.flow.batch.cache import is_fresh
from neuro.flow.batch.endings import Endings
from neuro.flow.batch.instructions import Instruction, Submit
from neuro.flow.batch.items import Item, Scope
from neuro.flow.batch.phases import Phase
from neuro.flow.batch.timers import Timer, Timers
from neuro.flow.batch.tries import Tries
from neuro.flow.batch.verdict import Verdict
from neuro.flow.batch.work import Work
from neuro.flow.model import FullId, NodeKind, Workflow, join_id


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
        self._life_span = life_span
        self._began = began
        self._work = work = Work(workflow, attempt_id)
        self._timers = Timers()
        self._verdict = Verdict()
        self._endings = Endings(work, self._verdict)
        self._tries = Tries(work, self._endings, self._timers)
        self._beginnings = Beginnings(
            work, self._endings, self._tries, records, local_phase=local_phase
        )
        self._root: Scope | None = None
        self._over = False

    # Questions.

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

    def take(self) -> list[Instruction]:
        """The instructions since the last call, in order."""
        return self._work.take()

    def wants(self, action: Submit) -> bool:
        """Whether a submission that was not sent yet is still wanted."""
        item = self._at(action.id, Phase.SUBMITTING, action.number)
        return item is not None and not self._work.is_stopped(item)

    def active_jobs(self) -> list[str]:
        """The jobs that this attempt waits for."""
        return [id for id, item in self._work.of_job.items() if item.phase is Phase.ACTIVE]

    def stray_jobs(self, tag: str) -> list[str]:
        """Active jobs with this tag that belong to no record: what a lost executor left behind."""
        return self._tries.strays(tag)

    # Events.

    def start(self, now: datetime) -> None:
        """Open the root, and continue from the records."""
        if self._life_span is not None:
            self._timers.set((self._began or now) + self._life_span, Timer(None))
        self._root = self._beginnings.open(self._work.workflow.root(), None)
        self._root.cancelling = self._verdict.is_cancelled
        self.wake(now)

    def cancel(self, now: datetime, message: str | None = None) -> None:
        """End what runs; from now on nothing but ALWAYS starts."""
        if self._over or self._verdict.is_cancelled:
            return
        self._verdict.cancel(message)
        if self._root is not None:
            self._endings.stop(self._root, now)
            self._run(now)

    def job_changed(self, job: JobState, now: datetime) -> None:
        """A job is in another state, or in the one that was known."""
        self._tries.job_changed(job, now)
        self._run(now)

    def job_gone(self, job_id: str, now: datetime) -> None:
        """The platform knows a job no more."""
        item = self._work.of_job.get(job_id)
        if item is not None and item.phase is Phase.ACTIVE:
            self._endings.fail(item, f"Its job {job_id} is gone.", now)
            self._run(now)

    def submitted(self, id: FullId, number: int, job: JobState, now: datetime) -> None:
        """A try of a task is a job now."""
        item = self._at(id, Phase.SUBMITTING, number)
        if item is not None:
            self._tries.submitted(item, job, now)
            self._run(now)

    def refused(self, id: FullId, number: int, message: str, now: datetime) -> None:
        """The platform does not take a task, and would not another time."""
        item = self._at(id, Phase.SUBMITTING, number)
        if item is not None:
            self._tries.refused(item, message, now)
            self._run(now)

    def unsent(self, id: FullId, number: int, now: datetime) -> None:
        """A submission was not sent: see ``wants``."""
        item = self._at(id, Phase.SUBMITTING, number)
        if item is not None:
            self._tries.unsent(item, now)
            self._run(now)

    def cached(self, id: FullId, entry: CacheEntry, now: datetime) -> TaskRequest | None:
        """The record of a task that takes an earlier outcome; None where it is too old.

        It is to be kept before ``looked_up`` tells of it: a later look might find nothing, and what
        was made of the outcome by then could not be made again.
        """
        item = self._work.busy.get(id)
        if item is None or item.task is None or not is_fresh(entry, item.task.cache, now):
            return None
        return TaskRequest(
            attempt_id=self._work.attempt_id,
            yaml_id=join_id(id),
            raw_id=entry.raw_id or None,
            outputs=dict(entry.outputs),
            state=dict(entry.state),
            statuses=[TaskTransition(created_at=now, status=TaskStatus.CACHED)],
        )

    def looked_up(self, id: FullId, found: TaskRequest | None, now: datetime) -> None:
        """The answer to LookUp: the record that ``cached`` has made and that is kept, or None."""
        item = self._at(id, Phase.LOOKING)
        if item is None:
            return
        if found is not None:
            item.raw_id = found.raw_id
            item.statuses = list(found.statuses)
            item.outputs, item.state = found.outputs or {}, found.state or {}
            self._endings.end(item, TaskStatus.CACHED, now)
        elif self._work.is_stopped(item):
            self._endings.skip(item, now)
        else:
            self._tries.submit(item)
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
        item = self._at(id, Phase.READING, number)
        if item is not None:
            self._endings.conclude(item, outputs, state, problem, now)
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
        item = self._work.busy.get(id)
        if item is None or item.node.kind is not NodeKind.LOCAL:
            return
        item.outputs, item.state, item.message = dict(outputs), {}, message
        item.step(status, now)
        self._work.write(item)
        self._endings.end(item, status, now)
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
        item = self._at(timer.id, timer.phase, timer.number)
        if item is None:
            return
        if timer.phase is Phase.PAUSING:
            self._beginnings.begin(item, now)
        else:
            self._tries.timed_out(item)

    # Consequences.

    def _run(self, now: datetime) -> None:
        """Work until nothing more follows from what has happened."""
        self._beginnings.run(now)
        root = self._root
        if root is not None and root.unfinished == 0 and not self._over:
            self._over = True
            self._work.ask(self._verdict.finish(root))

    def _at(self, id: FullId, phase: Phase, number: int | None = None) -> Item | None:
        """The node that an answer is for; None where it is at something else by now."""
        item = self._work.busy.get(id)
        if item is None or item.phase is not phase:
            return None
        return item if number is None or number == item.number else None
