"""Jobs as values, for tests of how they look."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from neuro.domain.jobs import (
    Container,
    History,
    HttpPort,
    Job,
    JobStatus,
    Resources,
    Transition,
)

CREATED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
JOB_ID = "job-43ca33a4-5a4c-4eee-9ac1-67deb7c66e14"


def make_job(
    *,
    status: JobStatus = JobStatus.PENDING,
    reason: str | None = None,
    description: str | None = None,
    command: str | None = None,
    image: str = "ubuntu",
    container: dict[str, Any] | None = None,
    history: dict[str, Any] | None = None,
    transitions: list[tuple[JobStatus, str | None]] | None = None,
    **more: Any,
) -> Job:
    """A job of anna in the cluster default, pending unless said otherwise."""
    steps = [
        Transition(status=step, reason=why, transition_time=CREATED)
        for step, why in transitions or [(status, reason)]
    ]
    fields: dict[str, Any] = {
        "id": JOB_ID,
        "owner": "anna",
        "cluster_name": "default",
        "uri": f"job://default/anna/{JOB_ID}",
        "scheduler_enabled": False,
        "pass_config": False,
        "is_preemptible": False,
        "is_preemptible_node_required": False,
        "total_price_credits": "0",
        "price_credits_per_hour": "0",
        "max_run_time_minutes": 1440,
    }
    return Job(
        status=status,
        history=History(
            status=status,
            reason=reason,
            description=description,
            created_at=CREATED,
            **(history or {}),
        ),
        statuses=steps,
        container=Container(
            image=image,
            command=command,
            resources=Resources(cpu=1.0, memory_mb=2048, memory=2 << 30, shm=True),
            http=HttpPort(port=80),
            **(container or {}),
        ),
        **(fields | more),
    )
