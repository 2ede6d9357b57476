"""The way of a task's job: submitted, seen running, over, and perhaps tried again.

Pure: a part of ``state.BakeState``.
"""

from __future__ import annotations

from datetime import datetime

from neuro.domain.bakes import TaskStatus
from neuro.domain.jobs import JobState, JobStatus
from neuro.flow.batch.endings import Endings, ended_as
from neuro.flow.batch.instructions import Submit
from neuro.flow.batch.items import Item
from neuro.flow.batch.job_ends import pause, pause_before_next
from neuro.flow.batch.phases import Event, Phase
from neuro.flow.batch.timers import Timer, Timers
from neuro.flow.batch.unclaimed import Unclaimed
from neuro.flow.batch.work import Work
from neuro.flow.model import ResolvedTask


class Tries:
    """Follows the tries of tasks, each of them a job."""

    def __init__(self, work: Work, endings: Endings, timers: Timers) -> None:
        self._work = work
        self._endings = endings
        self._timers = timers
        self._unclaimed = Unclaimed()

    def strays(self, tag: str) -> list[str]:
        """Active jobs with this tag that belong to no task."""
        return self._unclaimed.strays(tag)

    # Submissions and their answers.

    def submit(self, item: Item) -> None:
        """Have a try made a job."""
        assert item.task is not None
        item.pass_on(Event.SUBMIT)
        item.killed = item.timed_out = False
        self._unclaimed.asked()
        self._work.ask(Submit(item.node.id, item.number, item.task))

    def submitted(self, item: Item, job: JobState, now: datetime) -> None:
        """It is one now."""
        # Claimed first: once nothing is under way, what is known of jobs that are over is dropped.
        newer = self._unclaimed.claim(job.id)
        self._unclaimed.answered()
        item.raw_id = job.id
        item.message = None
        self._hold(item, job.id)
        item.step(TaskStatus.PENDING, job.created_at)
        self._work.write(item)
        self._follow(item, job, now)
        self._follow(item, newer, now)
        self._stop(item)

    def refused(self, item: Item, message: str, now: datetime) -> None:
        """It will not be one."""
        self._unclaimed.answered()
        self._endings.fail(item, message, now)

    def unsent(self, item: Item, now: datetime) -> None:
        """It was not asked for, as it was not wanted any more."""
        self._unclaimed.answered()
        if item.number > 1:
            self._endings.give_up(item, now)
        else:
            self._endings.skip(item, now)

    def resume(self, item: Item, job_id: str, number: int, now: datetime) -> None:
        """A try that an earlier executor has made a job goes on."""
        self._work.places.take(item, anyhow=True)
        item.number = number
        self._hold(item, job_id)
        if any(step.status is TaskStatus.RUNNING for step in item.statuses):
            self._endings.reach_start(item)
        self._follow(item, self._unclaimed.claim(job_id), now)
        self._stop(item)

    def _hold(self, item: Item, job_id: str) -> None:
        item.job_id = job_id
        item.pass_on(Event.JOB_KNOWN)
        self._work.of_job[job_id] = item

    def _follow(self, item: Item, job: JobState | None, now: datetime) -> None:
        if job is not None and item.phase is Phase.ACTIVE:
            self._job_at(item, job, now)

    def _stop(self, item: Item) -> None:
        if item.phase is Phase.ACTIVE and item.is_cancelling:
            self._work.kill(item)

    # Changes of jobs.

    def job_changed(self, job: JobState, now: datetime) -> None:
        """A job, perhaps of no task, is in another state, or in the one that was known."""
        item = self._work.of_job.get(job.id)
        if item is None:
            self._unclaimed.see(job)
        elif item.job_id == job.id:
            self._follow(item, job, now)

    def _job_at(self, item: Item, job: JobState, now: datetime) -> None:
        is_over, is_running = job.status.is_finished, job.status is JobStatus.RUNNING
        has_run = is_running or (is_over and job.started_at is not None)
        if has_run and item.statuses[-1].status is not TaskStatus.RUNNING:
            item.step(TaskStatus.RUNNING, job.started_at or now)
            if not is_over:
                self._work.write(item)
        if is_running or is_over:
            self._endings.reach_start(item)
        if is_over:
            item.job = job
            self._over(item, job, now)
            return
        if is_running:
            self._limit(item, job, now)
        item.job, item.told_at = job, now

    def _limit(self, item: Item, job: JobState, now: datetime) -> None:
        """Have a try that runs ended when its time is over."""
        task, known = item.task, item.job
        if task is None or task.timeout is None:
            return
        if known is not None and known.id == job.id and known.started_at == job.started_at:
            return
        # Not before it was last seen waiting: the server's clock may be another than ours.
        was_waiting = known is not None and known.status is JobStatus.PENDING
        earliest = item.told_at if was_waiting else job.started_at
        since = min(max(job.started_at or now, earliest or now), now)
        timer = Timer(item.node.id, item.number, Phase.ACTIVE)
        self._timers.set(since + pause(task.timeout), timer)

    def timed_out(self, item: Item) -> None:
        """The time of a try that runs is over."""
        item.timed_out = True
        self._work.kill(item, anyhow=True)

    def _over(self, item: Item, job: JobState, now: datetime) -> None:
        self._work.places.leave(item)
        self._work.of_job.pop(job.id, None)
        status, message = ended_as(item, job)
        task = item.task
        if status is not TaskStatus.FAILED or task is None or not self._has_another(item, task):
            self._endings.read(item, job, Event.JOB_OVER, now)
            return
        retry = task.retry
        item.pass_on(Event.TRY_AGAIN)
        item.message = f"Try {item.number} of {retry.attempts}: {message}"
        self._work.write(item)
        moment = min(job.finished_at or now, now) + pause_before_next(retry, item.number)
        self._timers.set(moment, Timer(item.node.id, item.number, Phase.PAUSING))

    def _has_another(self, item: Item, task: ResolvedTask) -> bool:
        return item.number < task.retry.attempts and not self._work.is_stopped(item)
