"""Jobs as the wire knows them (docs/reference/wire-protocol.md#jobs): requests, answers, states."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from neuro.domain.texts import Lines


class JobStatus(StrEnum):
    """Where a job is in its life. The last three are final."""

    PENDING = "pending"
    SUSPENDED = "suspended"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self in FINISHED


FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE = frozenset({JobStatus.PENDING, JobStatus.SUSPENDED, JobStatus.RUNNING})

# How many bytes of a job's output come before those of an answer: a reader comes back with the
# offset that this and what it was given make. Bytes that were dropped count.
LEFT_OUT_HEADER = "X-Neuro-Log-Left-Out"


class Reason(StrEnum):
    """Why a job is in its status; the words are the original platform's, but for two.

    Ours are ``DiskLimitExceeded`` and ``AddressChanged``.
    """

    CREATING = "Creating"
    SCHEDULING = "Scheduling"
    RESTARTING = "Restarting"
    COMPLETED = "Completed"
    ERROR = "Error"
    OOM_KILLED = "OOMKilled"
    DISK_LIMIT_EXCEEDED = "DiskLimitExceeded"
    CANNOT_RUN = "ContainerCannotRun"
    ERR_IMAGE_PULL = "ErrImagePull"
    INVALID_IMAGE_NAME = "InvalidImageName"
    NOT_FOUND = "NotFound"
    LIFE_SPAN_ENDED = "LifeSpanEnded"
    SCALE_UP_FAILED = "ClusterScaleUpFailed"  # not scheduled within its schedule timeout
    USER_REQUESTED = "UserRequested"
    ADDRESS_CHANGED = "AddressChanged"  # a main job that the server came back out of reach for


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Priority(StrEnum):
    """How urgent a job is; within one priority the oldest goes first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return ("low", "normal", "high").index(self)


class HttpPort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    port: int
    requires_auth: bool = True


class Volume(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    src_storage_uri: str
    dst_path: str
    read_only: bool = True


class SecretVolume(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    src_secret_uri: str
    dst_path: str


class DiskVolume(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    src_disk_uri: str
    dst_path: str
    read_only: bool = True


class RequestedResources(msgspec.Struct, frozen=True, kw_only=True):
    """Resources in a request; with a preset only ``shm`` may be given. ``memory`` is bytes."""

    cpu: float | None = None
    memory_mb: int | None = None
    memory: int | None = None
    gpu: int | None = None
    gpu_model: str | None = None
    nvidia_gpu: int | None = None
    shm: bool = False


class ContainerRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to run, as a client asks for it.

    ``stdin`` says that input will be sent through ``attach``: to a pipe, or with ``tty`` to the
    keyboard of a terminal. None: to a terminal only. Without it the command's input is empty.
    """

    image: str
    entrypoint: Lines | None = None
    command: Lines | None = None
    working_dir: str | None = None
    env: dict[str, Lines] = {}
    volumes: list[Volume] = []
    secret_env: dict[str, str] = {}
    secret_volumes: list[SecretVolume] = []
    disk_volumes: list[DiskVolume] = []
    http: HttpPort | None = None
    tty: bool = False
    stdin: bool | None = None
    resources: RequestedResources | None = None


class SavedContainer(msgspec.Struct, frozen=True):
    """``image`` is one of the platform's, as clients write it."""

    image: str


class SaveRequest(msgspec.Struct, frozen=True):
    """POST …/{job}/save: what the job is saved as."""

    container: SavedContainer


class SaveProgress(msgspec.Struct, frozen=True):
    """How much of an image is pushed, in units of the server's."""

    current: int = 0
    total: int = 0


class SaveEvent(msgspec.Struct, frozen=True, rename="camel"):
    """One line of what the server tells while a job is saved."""

    status: str = ""
    id: str = ""
    progress: str = ""
    progress_detail: SaveProgress | None = None


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST /jobs. The container's keys come flat (``?from_preset``) or under ``container``."""

    cluster_name: str | None = None
    preset_name: str | None = None
    name: str | None = None
    description: Lines | None = None
    tags: list[str] = []
    max_run_time_minutes: int | None = None
    schedule_timeout: float | None = None
    restart_policy: RestartPolicy = RestartPolicy.NEVER
    priority: Priority = Priority.NORMAL
    pass_config: bool = False
    wait_for_jobs_quota: bool = False
    privileged: bool = False
    scheduler_enabled: bool | None = None
    org_name: str | None = None
    project_name: str | None = None
    container: ContainerRequest | None = None
    # The same keys as ContainerRequest's, flat.
    image: str | None = None
    entrypoint: Lines | None = None
    command: Lines | None = None
    working_dir: str | None = None
    env: dict[str, Lines] = {}
    volumes: list[Volume] = []
    secret_env: dict[str, str] = {}
    secret_volumes: list[SecretVolume] = []
    disk_volumes: list[DiskVolume] = []
    http: HttpPort | None = None
    tty: bool = False
    stdin: bool | None = None
    resources: RequestedResources | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Resources in an answer: ``memory_mb`` and ``memory`` (bytes), for clients of two eras."""

    cpu: float
    memory_mb: int
    memory: int
    shm: bool
    gpu: int | None = None
    gpu_model: str | None = None
    nvidia_gpu: int | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What runs, as the server answers."""

    image: str
    resources: Resources
    entrypoint: str | None = None
    command: str | None = None
    working_dir: str | None = None
    env: dict[str, str] = {}
    volumes: list[Volume] = []
    secret_env: dict[str, str] = {}
    secret_volumes: list[SecretVolume] = []
    disk_volumes: list[DiskVolume] = []
    http: HttpPort | None = None
    tty: bool = False
    stdin: bool | None = None

    @property
    def has_keyboard(self) -> bool:
        """Whether keys that are typed in an attached terminal go into the job."""
        return self.tty and self.stdin is not False


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One step of a job's life."""

    status: JobStatus
    transition_time: datetime
    reason: str | None = None
    description: str | None = None
    exit_code: int | None = None


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The newest transition, with the job's times. ``exit_code`` present means it is over."""

    status: JobStatus
    created_at: datetime
    reason: str | None = None
    description: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_time_seconds: float | None = None
    restarts: int = 0
    exit_code: int | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job as the server answers (docs/reference/wire-protocol.md#the-job)."""

    id: str
    owner: str
    cluster_name: str
    uri: str
    status: JobStatus
    history: History
    statuses: list[Transition]
    container: Container
    scheduler_enabled: bool
    pass_config: bool
    is_preemptible: bool
    is_preemptible_node_required: bool
    total_price_credits: str
    price_credits_per_hour: str
    name: str | None = None
    description: str | None = None
    tags: list[str] = []
    preset_name: str | None = None
    org_name: str | None = None
    project_name: str | None = None
    http_url: str | None = None
    http_url_named: str | None = None
    internal_hostname: str | None = None
    internal_hostname_named: str | None = None
    restart_policy: RestartPolicy = RestartPolicy.NEVER
    max_run_time_minutes: int | None = None
    schedule_timeout: float | None = None
    priority: Priority = Priority.NORMAL
    preemptible_node: bool = False
    privileged: bool = False
    materialized: bool = False
    being_dropped: bool = False
    logs_removed: bool = False


class LifeSpanChange(msgspec.Struct, frozen=True, kw_only=True):
    """PUT /jobs/{id}/max_run_time_minutes: add to the life span, or set it."""

    additional_max_run_time_minutes: int | None = None
    max_run_time_minutes: int | None = None


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The query of GET /jobs (docs/reference/wire-protocol.md#listing).

    Empty lists mean: no condition.

    ``after`` is this platform's own addition: the id of the last job of the page before.
    """

    status: list[JobStatus] = []
    name: str | None = None
    owner: list[str] = []
    tag: list[str] = []
    since: datetime | None = None
    until: datetime | None = None
    cluster_name: str | None = None
    org_name: list[str] = []
    project_name: list[str] = []
    reverse: bool = False
    limit: int | None = None
    after: str | None = None
    being_dropped: bool | None = None
    logs_removed: bool | None = None


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What changes of a job, as streams of events tell it.

    ``log_bytes`` is how much output is kept: 0 where nothing was printed, None where that is not
    known (a job that is going on, a log that was removed).
    """

    id: str
    status: JobStatus
    created_at: datetime
    reason: str | None = None
    description: str | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_time_seconds: float = 0.0
    log_bytes: int | None = None
    tags: list[str] = []


class JobEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A line of GET /jobs/events: a job's state, ``synced``, or (with neither) a sign of life.

    A reader that comes back with the newest ``cursor`` gets only later changes. It is empty as
    long as the beginning was not told whole, up to the line that is ``synced``.
    """

    cursor: str = ""
    job: JobState | None = None
    synced: bool = False


class JobEventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The query of GET /jobs/events: jobs with all of these tags, of any of these owners.

    With ids, only of these jobs: so a reader that waits for a few does not get all earlier ones.
    """

    tag: list[str] = []
    owner: list[str] = []
    id: list[str] = []
    after: str | None = None


class UsageSample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One second of telemetry (docs/reference/wire-protocol.md#telemetry).

    ``memory`` is in MB, ``cpu`` in cores.
    """

    cpu: float
    memory: float
    memory_bytes: int
    timestamp: float
    gpu_duty_cycle: int | None = None
    gpu_memory: float | None = None
    gpu_memory_bytes: int | None = None
