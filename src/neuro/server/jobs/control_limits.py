"""Whether there may be one more control job, counted in the transaction that submits it.

What a server knows of the jobs that others accept is a moment old, so each could let in as many as
there may be. Whoever submits a control job is alone with that from the count to the commit.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from neuro.server.access.people import accounts_like, person_of
from neuro.server.database.transactions import alone
from neuro.server.jobs.plan import JobLimits, crowded_with_controls

_COUNT = (
    "SELECT count(*) AS controls,"
    " count(*) FILTER (WHERE owner = :person OR owner LIKE :accounts ESCAPE '/') AS of_person"
    " FROM jobs {index} WHERE control AND status IN ('pending', 'suspended', 'running')"
)
_ON_POSTGRES = text(_COUNT.format(index=""))
# Without statistics it takes the index of statuses, and reads every active job.
_ON_SQLITE = text(_COUNT.format(index="INDEXED BY ix_jobs_active_control"))


def check_control_limits(connection: Connection, owner: str, limits: JobLimits) -> None:
    """Raise TooManyRequests where an owner's person, or all together, have as many as they may.

    Others who ask wait for the transaction's end.
    """
    alone(connection, "control jobs")
    count = _ON_SQLITE if connection.dialect.name == "sqlite" else _ON_POSTGRES
    person = person_of(owner)
    found = connection.execute(count, {"person": person, "accounts": accounts_like(owner)}).one()
    crowd = crowded_with_controls(found.controls, found.of_person, limits, person)
    if crowd is not None:
        raise crowd
