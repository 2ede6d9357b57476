"""A job as the server keeps it, the steps of its life, and how the wire shows it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from neuro.domain.jobs import (
    Container,
    History,
    Job,
    JobStatus,
    Priority,
    RestartPolicy,
    Transition,
)
from neuro.domain.resources import Amount

# A job that restarts for ever keeps its newest steps only.
MAX_TRANSITIONS = 100


class Specification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What never changes after submission. ``gpu`` counts are in ``amount``.

    A ``control`` job only directs others: it starts at once and takes nothing from the capacity.
    ``api_url`` is where such a one looks for the platform for as long as it lives.
    """

    container: Container
    amount: Amount
    preset_name: str | None = None
    description: str | None = None
    tags: list[str] = []
    schedule_timeout: float | None = None
    restart_policy: RestartPolicy = RestartPolicy.NEVER
    pass_config: bool = False
    privileged: bool = False
    scheduler_enabled: bool = False
    preemptible_node: bool = False
    credits_per_hour: str = "0"
    http_url: str | None = None
    http_url_named: str | None = None
    control: bool = False
    api_url: str | None = None


@dataclass(slots=True)
class JobRecord:
    """One job. ``run`` counts restarts; ``placed`` means the engine was told to start that run.

    ``gpus`` are the indexes of the GPUs that it was given, from then on and over restarts; None
    where a version that did not write them down gave them.
    """

    id: str
    owner: str
    name: str | None
    cluster: str
    engine: str
    specification: Specification
    priority: Priority
    created_at: datetime
    status: JobStatus = JobStatus.PENDING
    transitions: list[Transition] = field(default_factory=list)
    max_run_time_minutes: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    stop_reason: str | None = None
    run: int = 0
    placed: bool = False
    run_started: bool = False
    gpus: tuple[int, ...] | None = ()
    logs_removed: bool = False
    log_bytes: int = 0
    sequence: int = 0

    @property
    def uri(self) -> str:
        return f"job://{self.cluster}/{self.owner}/{self.id}"

    @property
    def is_active(self) -> bool:
        return not self.status.is_finished

    @property
    def deadline(self) -> datetime | None:
        """When its life span ends, once it has started."""
        if self.started_at is None or self.max_run_time_minutes is None:
            return None
        return self.started_at + timedelta(minutes=self.max_run_time_minutes)

    def step(
        self,
        status: JobStatus,
        reason: str | None,
        at: datetime,
        *,
        description: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        """Go to a status; a finished job stays as it is."""
        if self.status.is_finished:
            return
        self.transitions.append(
            Transition(
                status=status,
                transition_time=at,
                reason=reason,
                description=description,
                exit_code=exit_code,
            )
        )
        del self.transitions[1:-MAX_TRANSITIONS]
        self.status = status
        if status is JobStatus.RUNNING and self.started_at is None:
            self.started_at = at
        if status.is_finished:
            self.finished_at = at
            # Clients want both times of every finished job, also of one that never ran.
            self.started_at = self.started_at or at
            self.exit_code = exit_code

    def run_time(self, now: datetime) -> timedelta:
        """How long it has run."""
        if self.started_at is None:
            return timedelta()
        return max(timedelta(), (self.finished_at or now) - self.started_at)


def to_wire(record: JobRecord, now: datetime, waiting: str | None = None) -> Job:
    """A record as clients read it. ``waiting`` says what a pending job waits for."""
    spec = record.specification
    last = record.transitions[-1] if record.transitions else None
    description = last.description if last else None
    if record.status is JobStatus.PENDING and waiting:
        description = waiting
    run_time = record.run_time(now)
    price = Decimal(spec.credits_per_hour)
    hours = Decimal(run_time.total_seconds()) / 3600
    return Job(
        id=record.id,
        owner=record.owner,
        cluster_name=record.cluster,
        uri=record.uri,
        name=record.name,
        description=spec.description,
        tags=spec.tags,
        status=record.status,
        history=History(
            status=record.status,
            reason=last.reason if last else None,
            description=description,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            run_time_seconds=run_time.total_seconds(),
            restarts=record.run,
            exit_code=record.exit_code,
        ),
        statuses=record.transitions,
        container=spec.container,
        scheduler_enabled=spec.scheduler_enabled,
        preemptible_node=spec.preemptible_node,
        is_preemptible=spec.scheduler_enabled,
        is_preemptible_node_required=spec.preemptible_node,
        pass_config=spec.pass_config,
        privileged=spec.privileged,
        preset_name=spec.preset_name,
        total_price_credits=str((price * hours).quantize(Decimal("0.0001"))),
        price_credits_per_hour=spec.credits_per_hour,
        http_url=spec.http_url,
        http_url_named=spec.http_url_named,
        internal_hostname=f"{record.id}.platform-jobs",
        internal_hostname_named=(
            f"{record.name}--{record.owner}.platform-jobs" if record.name else None
        ),
        restart_policy=spec.restart_policy,
        max_run_time_minutes=record.max_run_time_minutes,
        schedule_timeout=spec.schedule_timeout,
        priority=record.priority,
        project_name=record.owner,
        materialized=record.status.is_finished,
        logs_removed=record.logs_removed,
    )
