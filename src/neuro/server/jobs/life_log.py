"""What the server's log says of the lives of jobs."""

from __future__ import annotations

import structlog

from neuro.engines.base import Exited
from neuro.server.jobs import life
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord

log = structlog.get_logger("neuro.jobs")


def tell_log(before: JobRecord, after: JobRecord, happening: life.Happening) -> None:
    """Say what has become of a job, if that is worth a line."""
    job, owner = after.id, after.owner
    if after.stop_reason != before.stop_reason:
        log.info("job is to end", job=job, owner=owner, reason=after.stop_reason)
    if after.phase is before.phase:
        return
    if after.run_started and not before.run_started:
        log.info("job started", job=job, owner=owner, run=after.run)
    if after.phase is Phase.PAUSING and after.tries > before.tries:
        log.warning("job cannot start yet", job=job, why=_why(happening))
    if not after.is_active:
        if isinstance(happening, life.StartTrouble):
            log.warning("job cannot start", job=job, error=happening.why)
        log.info(
            "job is over",
            job=job,
            owner=owner,
            status=after.status.value,
            reason=after.transitions[-1].reason,
            exit_code=after.exit_code,
            peak_memory=happening.peak_memory if isinstance(happening, Exited) else None,
        )


def _why(happening: life.Happening) -> str | None:
    match happening:
        case life.StartTrouble(_, _, why) | Exited(message=why):
            return why
        case _:
            return None
