"""A job as the server keeps it, the steps of its life, and how the wire shows it. No I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Self

import msgspec
from msgspec.structs import replace

from neuro.domain.images import is_builder_image
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
from neuro.server.jobs.phases import BEGUN, Phase

# A job that restarts for ever keeps its first step and its newest ones only.
MAX_TRANSITIONS = 101
MAX_HOST_LABEL = 63  # RFC 1035


class Specification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What never changes after submission. ``gpu`` counts are in ``amount``.

    A ``control`` job only directs others: it starts at once and takes nothing from the capacity.
    ``api_url`` is where such a one looks for the platform for as long as it lives. ``registry`` is
    the host by which the person who submitted a builder knows the registry of the platform.
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
    control: bool = False
    api_url: str | None = None
    registry: str = ""

    @property
    def is_builder(self) -> bool:
        """Whether this is a job that builds images, by the platform's own program."""
        return is_builder_image(self.container.image)

    @property
    def has_token(self) -> bool:
        """Whether its runs are given a token."""
        return self.pass_config or self.is_builder


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job at one moment; ``life.decide`` says what it is after an event.

    ``run`` counts restarts. ``node`` and ``gpus`` are the place that it was given, from its
    placement on and over restarts, by the names that its engine has for them. ``gpus`` is None, and
    ``node`` empty, where a version that did not write them down gave them.
    ``stop_reason`` is why it is to end, from when that is known.

    The last three are not kept: when an alarm is due, how many starts of the run failed one after
    the other, and how often the engine was asked to stop it.
    """

    id: str
    owner: str
    name: str | None
    cluster: str
    engine: str
    specification: Specification
    priority: Priority
    created_at: datetime
    phase: Phase = Phase.WAITING
    transitions: tuple[Transition, ...] = ()
    max_run_time_minutes: int | None = None
    started_at: datetime | None = None
    stop_reason: str | None = None
    run: int = 0
    node: str = ""
    gpus: tuple[str, ...] | None = ()
    logs_removed: bool = False
    log_bytes: int = 0
    sequence: int = 0
    wake_at: datetime | None = None
    tries: int = 0
    stops: int = 0

    @property
    def uri(self) -> str:
        return f"job://{self.cluster}/{self.owner}/{self.id}"

    @property
    def is_active(self) -> bool:
        return self.phase is not Phase.OVER

    @property
    def status(self) -> JobStatus:
        """What clients are told; a job that restarts is running."""
        if self.phase is Phase.OVER:
            return self.transitions[-1].status
        return JobStatus.RUNNING if self.run or self.run_started else JobStatus.PENDING

    @property
    def placed(self) -> bool:
        """Whether it holds its resources."""
        return Phase.WAITING < self.phase < Phase.OVER

    @property
    def run_started(self) -> bool:
        """Whether the command of its present run has begun, and the run is not over."""
        return self.phase in BEGUN

    @property
    def finished_at(self) -> datetime | None:
        return None if self.is_active else self.transitions[-1].transition_time

    @property
    def exit_code(self) -> int | None:
        return None if self.is_active else self.transitions[-1].exit_code

    @property
    def deadline(self) -> datetime | None:
        """When its life span ends, once it has started."""
        if self.started_at is None or self.max_run_time_minutes is None:
            return None
        return self.started_at + timedelta(minutes=self.max_run_time_minutes)

    def stepped(self, reason: str | None, at: datetime, description: str | None = None) -> Self:
        """The same with one more step of its history, in the status that it has."""
        step = Transition(
            status=self.status, transition_time=at, reason=reason, description=description
        )
        started_at = self.started_at
        if started_at is None and step.status is JobStatus.RUNNING:
            started_at = at
        return replace(self, transitions=self._with(step), started_at=started_at)

    def ended(
        self,
        status: JobStatus,
        reason: str | None,
        at: datetime,
        *,
        description: str | None = None,
        exit_code: int | None = None,
    ) -> Self:
        """The same, over."""
        step = Transition(
            status=status,
            transition_time=at,
            reason=reason,
            description=description,
            exit_code=exit_code,
        )
        # Clients want both times of every finished job, also of one that never ran.
        started_at = self.started_at or at
        return replace(self, phase=Phase.OVER, transitions=self._with(step), started_at=started_at)

    def _with(self, step: Transition) -> tuple[Transition, ...]:
        every = (*self.transitions, step)
        return every if len(every) <= MAX_TRANSITIONS else (every[0], *every[1 - MAX_TRANSITIONS :])

    def run_time(self, now: datetime) -> timedelta:
        """How long it has run."""
        if self.started_at is None:
            return timedelta()
        return max(timedelta(), (self.finished_at or now) - self.started_at)


def to_wire(
    record: JobRecord,
    now: datetime,
    waiting: str | None = None,
    *,
    jobs_domain: str,
    ending: str | None = None,
) -> Job:
    """A record as clients read it.

    ``waiting`` says what a pending job waits for, ``ending`` what the end of one waits for that is
    to end. ``jobs_domain`` is the host of web pages of jobs.
    """
    # Lists show thousands at a time: what is computed is computed once, and no sum of nothing.
    spec, status = record.specification, record.status
    label = host_label(record)
    page, named_page = _pages(record, jobs_domain) if spec.container.http else (None, None)
    last = record.transitions[-1] if record.transitions else None
    reason, description = (last.reason, last.description) if last else (None, None)
    if ending:
        reason, description = record.stop_reason, ending
    elif waiting and status is JobStatus.PENDING:
        description = waiting
    run_time = record.run_time(now)
    return Job(
        id=record.id,
        owner=record.owner,
        cluster_name=record.cluster,
        uri=record.uri,
        name=record.name,
        description=spec.description,
        tags=spec.tags,
        status=status,
        history=History(
            status=status,
            reason=reason,
            description=description,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            run_time_seconds=run_time.total_seconds(),
            restarts=record.run,
            exit_code=record.exit_code,
        ),
        statuses=list(record.transitions),
        container=spec.container,
        scheduler_enabled=spec.scheduler_enabled,
        preemptible_node=spec.preemptible_node,
        is_preemptible=spec.scheduler_enabled,
        is_preemptible_node_required=spec.preemptible_node,
        pass_config=spec.pass_config,
        privileged=spec.privileged,
        preset_name=spec.preset_name,
        total_price_credits=_price(spec.credits_per_hour, run_time),
        price_credits_per_hour=spec.credits_per_hour,
        http_url=page,
        http_url_named=named_page,
        internal_hostname=f"{record.id}.platform-jobs",
        internal_hostname_named=f"{label}.platform-jobs" if label else None,
        restart_policy=spec.restart_policy,
        max_run_time_minutes=record.max_run_time_minutes,
        schedule_timeout=spec.schedule_timeout,
        priority=record.priority,
        project_name=record.owner,
        materialized=status.is_finished,
        logs_removed=record.logs_removed,
    )


def _price(credits_per_hour: str, run_time: timedelta) -> str:
    if credits_per_hour == "0":
        return "0.0000"
    hours = Decimal(run_time.total_seconds()) / 3600
    return str((Decimal(credits_per_hour) * hours).quantize(Decimal("0.0001")))


def host_label(record: JobRecord) -> str | None:
    """The name of a job among hosts, if it has one that fits: a service account's may not."""
    if not record.name:
        return None
    label = f"{record.name}--{record.owner}"
    return label if len(label) <= MAX_HOST_LABEL else None


def _pages(record: JobRecord, jobs_domain: str) -> tuple[str, str | None]:
    """Where a job's web page is, by its id and by its name."""
    label = host_label(record)
    named = f"http://{label}.jobs.{jobs_domain}" if label else None
    return f"http://{record.id}.jobs.{jobs_domain}", named
