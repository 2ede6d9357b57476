"""Jobs whose records cannot be read any more, and which are not over: how somebody ends one.

Nobody has such a job on a board, so its run goes on and nothing is heard of it. What is stored
beside the damage, in columns of their own, is enough to end it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection, select, update

from neuro.domain.errors import Damaged, Unavailable
from neuro.domain.jobs import ACTIVE, JobStatus, Transition
from neuro.engines.base import EngineFault, RunRef
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.jobs import tables
from neuro.server.jobs.leases import EngineLease
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.tables import jobs

log = structlog.get_logger("neuro.jobs")

_SAID = "The record of the job was damaged, and is what could be made of the rest"


class DamagedJobs:
    """Ends those that are on engines of this server."""

    def __init__(self, database: Database, reconciler: Reconciler, stop_grace: float) -> None:
        """``stop_grace`` is seconds between SIGTERM and SIGKILL."""
        self._database = database
        self._reconciler = reconciler
        self._stop_grace = stop_grace

    async def end(self, job_id: str, reason: str) -> bool:
        """Stop the run of a job that is damaged and not over, and let it be over.

        False where that is for another server to do. Raises Unavailable where it cannot be done
        now.
        """
        found = await self._database.read(partial(_engine_and_run, job_id=job_id))
        if found is None:
            return True
        engine, run = found
        holding = self._reconciler.holding(engine)
        if holding is None:
            return False
        try:
            holding.check()
            await holding.engine.stop(RunRef(job_id, run), self._stop_grace)
        except (EngineFault, OSError) as error:
            raise Unavailable(f"Job {job_id} cannot be stopped now: {error}") from error
        await self._database.write(partial(_end, holding.lease, job_id, reason))
        log.info("damaged job ended", job=job_id, reason=reason)
        return True


def _engine_and_run(connection: Connection, job_id: str) -> tuple[str, int] | None:
    """Where a job is, if its record is damaged and it is not over."""
    try:
        tables.get_job(connection, job_id)
    except Damaged:
        wanted = (jobs.c.id == job_id) & jobs.c.status.in_([status.value for status in ACTIVE])
        row = connection.execute(select(jobs.c.engine, jobs.c.run).where(wanted)).one_or_none()
        return None if row is None else (row.engine, row.run)
    return None


def _end(lease: EngineLease, job_id: str, reason: str, connection: Connection) -> None:
    lease.check(connection)
    now = datetime.now(UTC)
    step = Transition(
        status=JobStatus.CANCELLED, transition_time=now, reason=reason, description=_SAID
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            status=JobStatus.CANCELLED.value,
            stop_reason=reason,
            started_at=now,  # Clients want both times, and the one that is there may be damaged.
            finished_at=now,
            placed=False,
            run_started=False,
            transitions=msgspec.json.encode((step,)),
        )
    )
    tell_others(connection, Topic.JOB, (job_id,))


def left_out(ids: list[str]) -> str | None:
    """What is said of a list without the damaged records of these jobs."""
    if not ids:
        return None
    shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
    what = (
        "1 job is left out, as its record is damaged"
        if len(ids) == 1
        else f"{len(ids)} jobs are left out, as their records are damaged"
    )
    return f"{what}: {shown}. `neuro kill` ends one that is not over."
