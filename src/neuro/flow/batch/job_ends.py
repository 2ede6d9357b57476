"""How jobs end, in the words of records, and when a task is tried again. Pure."""

from __future__ import annotations

from datetime import timedelta

from neuro.domain.bakes import TaskStatus
from neuro.domain.durations import format_duration
from neuro.domain.jobs import JobState, JobStatus, Reason
from neuro.flow.model import RetryPolicy

# More than this is not worth a wait: timedelta itself ends there.
_LONGEST_PAUSE = 366 * 86400.0


def ended(
    job: JobState, timeout: float | None, *, timed_out: bool, is_ours: bool
) -> tuple[TaskStatus, str | None]:
    """The status of a task whose job is over, and why.

    ``timed_out`` tells that the job was ended for its time; the times of the job tell it as well,
    also to an executor that did not end it itself. ``is_ours`` tells that no person did.
    """
    if job.status is JobStatus.SUCCEEDED:
        return TaskStatus.SUCCEEDED, None
    if job.status is JobStatus.CANCELLED:
        took = job.finished_at - job.started_at if job.finished_at and job.started_at else None
        if timeout is not None:
            late = took is not None and took >= pause(timeout)
            if late or timed_out:
                return TaskStatus.FAILED, f"timed out after {_words(timeout)}"
        if job.reason == Reason.LIFE_SPAN_ENDED:
            return TaskStatus.CANCELLED, "The life span of its job has ended."
        is_told = job.reason == Reason.USER_REQUESTED and not is_ours
        return TaskStatus.CANCELLED, "Its job was killed." if is_told else None
    if job.reason in (None, Reason.ERROR) and job.exit_code is not None:
        more = f": {job.description}" if job.description else ""
        return TaskStatus.FAILED, f"exit code {job.exit_code}{more}"
    words = [word for word in (job.reason, job.description) if word]
    return TaskStatus.FAILED, ": ".join(words) or None


def pause_before_next(retry: RetryPolicy, number: int) -> timedelta:
    """How long to wait after try ``number``."""
    try:
        return pause(retry.delay * retry.backoff ** (number - 1))
    except OverflowError:
        return pause(_LONGEST_PAUSE)


def pause(seconds: float) -> timedelta:
    """A time within what can be waited for."""
    return timedelta(seconds=min(max(seconds, 0.0), _LONGEST_PAUSE))


def _words(seconds: float) -> str:
    return format_duration(pause(seconds)) if seconds >= 1 else f"{seconds:g}s"
