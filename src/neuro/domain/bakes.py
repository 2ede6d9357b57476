"""Bakes as the wire knows them: what one run of a batch leaves.

See docs/reference/wire-protocol.md#flows.

A bake is one run of a batch workflow, an attempt one try of a bake, a task one node of its graph.
Keys that are this platform's own have defaults, so that other clients need not know them.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum

import msgspec

from neuro.domain.texts import Message, Verbatim


class TaskStatus(StrEnum):
    """Where a task or an attempt is in its life."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    CACHED = "cached"

    @property
    def is_finished(self) -> bool:
        return self not in _OPEN


_OPEN = frozenset({TaskStatus.UNKNOWN, TaskStatus.PENDING, TaskStatus.RUNNING})


class ImageStatus(StrEnum):
    """Where the image of a bake is on its way to be built."""

    PENDING = "pending"
    BUILDING = "building"
    BUILT = "built"
    BUILD_FAILED = "build_failed"
    CACHED = "cached"


class GitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that a bake was submitted from."""

    sha: str
    branch: str
    tags: list[str] = []


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """Bakes of one project and group run one after the other, in the order of their submission.

    With ``cancel_running`` a new one ends those before it instead of waiting for them.
    """

    group: str
    cancel_running: bool = False


class BakeMeta(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a bake. All fields but ``git_info`` are this platform's own.

    ``hashes`` holds what ``hash_files`` gave at submission, by a digest of its arguments;
    ``life_span`` is seconds from the start of an attempt; ``schedule`` the id of the schedule that
    started it; ``flow_id`` the workflow's id where it is not the batch's name.
    """

    git_info: GitInfo | None = None
    hashes: dict[str, str] = {}
    life_span: float | None = None
    concurrency: Concurrency | None = None
    schedule: str | None = None
    flow_id: str | None = None


class ConfigsMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Which stored files an attempt is read from: ids of config files."""

    workspace: str
    flow_config_id: str
    project_config_id: str | None = None
    action_config_ids: dict[str, str] = {}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a bake. ``executor_id`` is its main job; None where a terminal drives it."""

    id: str
    bake_id: str
    number: int
    created_at: datetime
    result: TaskStatus
    configs_meta: ConfigsMeta
    executor_id: str | None = None
    message: str | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt takes over from an earlier one of its bake, by the full ids of tasks.

    ``attempt`` is the number of that one. The records of ``tasks``, which have ended, are copied as
    they are. ``calls`` go on with what is kept below them: of those the beginning is kept alone.
    """

    attempt: int
    tasks: list[str] = []
    calls: list[str] = []


class AttemptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/attempts, and PUT /flow/attempts/replace (by ``bake_id`` and ``number``).

    ``kept`` is for POST: the attempt is there with all of it, or not at all.
    """

    bake_id: str
    number: int
    result: TaskStatus
    configs_meta: ConfigsMeta
    created_at: datetime | None = None
    executor_id: str | None = None
    message: Message | None = None
    kept: Kept | None = None


# Full ids joined with dots, by the prefix that they are below; the root's prefix is empty.
Graphs = dict[str, dict[str, list[str]]]


class Bake(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a batch workflow.

    ``owner`` submitted it, and every attempt runs in that name.
    ``finished_at`` is when its last attempt ended; None while one goes on.
    """

    id: str
    project_id: str
    batch: str
    created_at: datetime
    graphs: Graphs
    params: dict[str, str] = {}
    name: str | None = None
    tags: list[str] = []
    meta: BakeMeta = BakeMeta()
    last_attempt: Attempt | None = None
    owner: str | None = None
    finished_at: datetime | None = None


class BakeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/bakes."""

    project_id: str
    batch: str
    graphs: Graphs
    params: dict[str, Verbatim] = {}
    name: str | None = None
    tags: list[str] = []
    meta: BakeMeta = BakeMeta()
    created_at: datetime | None = None


class BakeChange(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /flow/bakes/{id}: its graphs, once tasks are known that its outputs decide."""

    graphs: Graphs


class BakeFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The query of GET /flow/bakes; all of ``tags`` must be there, times are inclusive."""

    project_id: str
    name: str | None = None
    tags: list[str] = []
    since: datetime | None = None
    until: datetime | None = None
    reverse: bool = False
    fetch_last_attempt: bool = False


class TaskTransition(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a task's life."""

    created_at: datetime
    status: TaskStatus


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an attempt. ``yaml_id`` is its full id, joined with dots.

    ``outputs`` and ``state`` are there once it has succeeded or is cached. ``message`` says why a
    task ended as it did, where that is not in its job's output.
    """

    id: str
    attempt_id: str
    yaml_id: str
    raw_id: str | None = None
    outputs: dict[str, str] | None = None
    state: dict[str, str] | None = None
    statuses: list[TaskTransition] = []
    message: str | None = None

    @property
    def status(self) -> TaskStatus:
        return self.statuses[-1].status if self.statuses else TaskStatus.UNKNOWN


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/tasks, PUT /flow/tasks/replace (by ``attempt_id`` and ``yaml_id``).

    ``cache_key`` is what the outcome of a task that has succeeded is kept under for later bakes.
    """

    attempt_id: str
    yaml_id: str
    raw_id: str | None = None
    outputs: dict[str, Verbatim] | None = None
    state: dict[str, Verbatim] | None = None
    statuses: list[TaskTransition] = []
    message: Message | None = None
    cache_key: str | None = None


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a flow file as it was when the bake was submitted."""

    id: str
    bake_id: str
    filename: str
    content: str


class ConfigFileRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/config_files."""

    bake_id: str
    filename: str
    content: Verbatim


class CacheEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a task that a later one with the same key may take."""

    id: str
    project_id: str
    batch: str
    task_id: str
    key: str
    created_at: datetime
    raw_id: str = ""
    outputs: dict[str, str] = {}
    state: dict[str, str] = {}


class CacheEntryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/cache_entries: written over the one of the same project, batch, task and key."""

    project_id: str
    batch: str
    task_id: str
    key: str
    raw_id: str = ""
    outputs: dict[str, Verbatim] = {}
    state: dict[str, Verbatim] = {}
    created_at: datetime | None = None


class BakeImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that tasks of a bake run, and how it is built."""

    id: str
    bake_id: str
    ref: str
    status: ImageStatus
    yaml_defs: list[str]
    context_on_storage: str | None = None
    dockerfile_rel: str | None = None
    builder_job_id: str | None = None


class BakeImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/bake_images."""

    bake_id: str
    ref: str
    yaml_defs: list[str]
    status: ImageStatus = ImageStatus.PENDING
    context_on_storage: str | None = None
    dockerfile_rel: str | None = None
    builder_job_id: str | None = None


class BakeImageChange(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /flow/bake_images/{id}."""

    status: ImageStatus | None = None
    builder_job_id: str | None = None


class BakeEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of GET /flow/bakes/{id}/events; one of its parts is there.

    The stream begins with the state as it is: the attempt, its tasks, then ``synced``; then comes
    each change. ``ahead`` names the bakes of the same concurrency group that this one waits for,
    empty when it is its turn. A line with nothing is a sign of life.
    """

    attempt: Attempt | None = None
    task: Task | None = None
    ahead: list[str] | None = None
    synced: bool = False


class Overlap(StrEnum):
    """What a schedule does when its previous bake still runs."""

    SKIP = "skip"
    ALLOW = "allow"
    CANCEL = "cancel"


class CatchUp(StrEnum):
    """What becomes of times that passed while the server was down."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class ScheduledFile(msgspec.Struct, frozen=True, kw_only=True):
    """A flow file of a schedule. ``role`` is ``flow``, ``project`` or an action's reference."""

    role: str
    filename: str
    content: Verbatim


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """PUT /flow/schedules: one for each project and batch, with all that its bakes are made of."""

    project_id: str
    batch: str
    cron: str
    timezone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LAST
    workspace: str
    files: list[ScheduledFile]
    graphs: Graphs
    params: dict[str, Verbatim] = {}
    tags: list[str] = []
    meta: BakeMeta = BakeMeta()


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When bakes of a batch are started by the server. ``owner`` is whose rights they have."""

    id: str
    project_id: str
    batch: str
    cron: str
    timezone: str
    overlap: Overlap
    catch_up: CatchUp
    owner: str
    created_at: datetime
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_bake_id: str | None = None
    message: str | None = None
    params: dict[str, str] = {}
    tags: list[str] = []


def new_id(kind: str) -> str:
    """A fresh id ``<kind>-<uuid4>``.

    The kinds: bake, attempt, task, config-file, cache-entry, bake-image, schedule.
    """
    return f"{kind}-{uuid.uuid4()}"
