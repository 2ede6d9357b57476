"""The exit code that a job's end is for whoever ran it."""

from __future__ import annotations

from neuro.cli.failures import INTERRUPTED, MALFUNCTION, TIMEOUT
from neuro.domain.jobs import Job, JobStatus, Reason


def job_exit_code(job: Job) -> int:
    """The command's exit code for a job that is over; 0 only where the job succeeded."""
    code = job.history.exit_code
    if job.status is JobStatus.FAILED:
        return code or MALFUNCTION
    if job.status is JobStatus.CANCELLED:
        # Cut off, even where the command had its own way of ending well.
        return code or (TIMEOUT if job.history.reason == Reason.LIFE_SPAN_ENDED else INTERRUPTED)
    return code or 0
