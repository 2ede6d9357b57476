"""What becomes of a job whose run has ended: restarted, or over with a status and a reason."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from neuro.domain.jobs import JobStatus, Reason, RestartPolicy
from neuro.engines.base import ExitCause, Exited, RunRef
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord

MAX_BACKOFF_SECONDS = 60.0

_REASONS = {
    ExitCause.COMPLETED: Reason.COMPLETED,
    ExitCause.ERROR: Reason.ERROR,
    ExitCause.OUT_OF_MEMORY: Reason.OOM_KILLED,
    ExitCause.DISK_LIMIT: Reason.DISK_LIMIT_EXCEEDED,
    ExitCause.CANNOT_START: Reason.CANNOT_RUN,
    ExitCause.IMAGE_PULL: Reason.ERR_IMAGE_PULL,
    ExitCause.INVALID_IMAGE: Reason.INVALID_IMAGE_NAME,
    ExitCause.LOST: Reason.NOT_FOUND,
}
# Another run would end likewise.
_NEVER_RAN = {ExitCause.CANNOT_START, ExitCause.IMAGE_PULL, ExitCause.INVALID_IMAGE}


def must_restart(record: JobRecord, event: Exited) -> bool:
    """Whether the job's policy asks for another run."""
    policy = record.specification.restart_policy
    return (
        record.stop_reason is None
        and event.cause not in _NEVER_RAN
        and (
            policy is RestartPolicy.ALWAYS
            or (policy is RestartPolicy.ON_FAILURE and event.exit_code != 0)
        )
    )


def backoff(run: int) -> float:
    """Seconds between a run and the next."""
    return min(2.0 ** min(run, 10), MAX_BACKOFF_SECONDS)


def restarted(record: JobRecord, event: Exited) -> JobRecord:
    """The job before its next run."""
    run = record.run + 1
    code = "unknown" if event.exit_code is None else event.exit_code
    said = f"Exit code {code}; restart {run} in {backoff(record.run):g} seconds"
    paused = replace(record, phase=Phase.PAUSING, run=run, tries=0)
    return paused.stepped(Reason.RESTARTING, event.at, said)


def finished(record: JobRecord, event: Exited) -> JobRecord:
    """The job that is over with its last run."""
    reason: str = _REASONS[event.cause]
    status = JobStatus.SUCCEEDED if event.exit_code == 0 else JobStatus.FAILED
    if record.stop_reason is not None:
        status, reason = JobStatus.CANCELLED, record.stop_reason
    return replace(record, log_bytes=event.output_bytes).ended(
        status, reason, event.at, description=event.message, exit_code=event.exit_code
    )


def withdrawn(record: JobRecord, at: datetime, waited_for: str | None = None) -> JobRecord:
    """The job that is over without a run. ``waited_for`` is a sentence: what it needed."""
    reason = record.stop_reason or Reason.USER_REQUESTED
    if reason != Reason.SCALE_UP_FAILED:
        return record.ended(JobStatus.CANCELLED, reason, at)
    why = (waited_for or "the machine was busy").replace("Waits for ", "it waited for ", 1)
    description = f"It was not scheduled in time: {why}"
    return record.ended(JobStatus.FAILED, reason, at, description=description)


def lost(record: JobRecord, at: datetime) -> Exited:
    """The end of a run of which the engine knows nothing."""
    return _ended(record, at, ExitCause.LOST, "The machine restarted or the run was removed.")


def cannot_start(record: JobRecord, at: datetime, why: str) -> Exited:
    """The end of a run that the engine could not begin."""
    return _ended(record, at, ExitCause.CANNOT_START, why)


def _ended(record: JobRecord, at: datetime, cause: ExitCause, message: str) -> Exited:
    return Exited(
        ref=RunRef(record.id, record.run), at=at, exit_code=None, cause=cause, message=message
    )
