"""The words that evaluating, driving and drawing share. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from neuro.domain.bakes import TaskStatus

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.syntax.types import Always

# The ids on the way from the root graph to a node: ("call", "inner").
FullId = tuple[str, ...]
ROOT: FullId = ()


def join_id(full_id: FullId) -> str:
    """Write a full id the way the wire has it."""
    return ".".join(full_id)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """The evaluated settings of a container; times are seconds, tags are sorted."""

    image: str
    name: str | None
    preset: str | None
    schedule_timeout: float | None
    life_span: float | None
    http_port: int | None
    http_auth: bool | None
    entrypoint: str | None
    cmd: str | None
    workdir: str | None
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    tags: tuple[str, ...]
    pass_config: bool
    restart: str | None


class NodeKind(StrEnum):
    """The kind of a node: how it runs once it is ready."""

    TASK = "task"  # a job
    CALL = "call"  # a batch action or module: a graph of its own opens
    STATEFUL = "stateful"  # the main part of a stateful action: a job whose state is kept
    POST = "post"  # the other part: a job that sees that state
    LOCAL = "local"  # a command on the machine of who submits
    GROUP = "group"  # a matrix that outputs decide: its rows appear beside it


class Level(StrEnum):
    """How far a need must have come."""

    RUNNING = "running"
    COMPLETED = "completed"


class Limit(msgspec.Struct, frozen=True):
    """At most ``size`` nodes that name the same ``key`` may be unfinished jobs (or open calls)."""

    key: FullId
    size: int


class Node(msgspec.Struct, frozen=True):
    """A node of a graph: what it waits for and how it runs; evaluated later, by its workflow.

    ``needs`` are full ids of the same graph. ``main`` is, for a POST, its stateful main,
    and for a GROUP of them the group of their mains.
    ``source`` is the workflow's own.
    """

    id: FullId
    kind: NodeKind
    needs: Mapping[FullId, Level]
    fail_fast: bool
    limit: Limit | None
    at: Position
    continue_on_error: bool = False
    main: FullId | None = None
    group: FullId | None = None
    source: object = None


class Graph(msgspec.Struct, frozen=True):
    """The nodes below a prefix, in the order of their lines."""

    prefix: FullId
    nodes: Mapping[FullId, Node]


class Outcome(msgspec.Struct, frozen=True):
    """How a node ended, as expressions of others see it. ``result`` is never CACHED.

    ``tolerated`` tells that it failed, and may: ``continue_on_error``.
    """

    result: TaskStatus
    outputs: Mapping[str, str] = {}
    state: Mapping[str, str] = {}
    tolerated: bool = False


Outcomes = Mapping[FullId, Outcome]


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a task is tried in all, and the pause before the next try.

    The pause before try n + 1 is ``delay * backoff ** (n - 1)`` seconds.
    """

    attempts: int = 1
    delay: float = 0.0
    backoff: float = 1.0


class CacheRule(msgspec.Struct, frozen=True):
    """Whether an earlier success is taken (``default`` or ``none``), for how many seconds, and the
    user's own part of the key."""

    strategy: str = "default"
    life_span: float = 14 * 86400.0
    key: str = ""


class ResolvedTask(Unit, frozen=True, kw_only=True):
    """A task with every expression evaluated."""

    id: FullId
    title: str | None
    enable: bool | Always
    fail_fast: bool
    max_parallel: int
    cache: CacheRule
    retry: RetryPolicy
    timeout: float | None


class LocalCommand(msgspec.Struct, frozen=True):
    """The command of a local action: words, without a shell."""

    id: FullId
    words: tuple[str, ...]


class ImageDefinition(Protocol):
    """How an image is built, beside its context and its Dockerfile."""

    @property
    def build_args(self) -> tuple[str, ...]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def volumes(self) -> tuple[str, ...]: ...
    @property
    def build_preset(self) -> str | None: ...
    @property
    def force_rebuild(self) -> bool: ...
    @property
    def extra_kaniko_args(self) -> str | None: ...


class Workflow(Protocol):
    """A batch workflow as its executor sees it. Every method is deterministic.

    Methods raise FlowError where an expression fails: that fails the one node.
    ``outcomes`` holds at least those of the node's needs (level completed) that have ended.
    """

    project_id: str
    flow_id: str
    batch: str

    def image(self, ref: str) -> ImageDefinition | None:
        """What the files say of an image, by its reference; None where that is not known yet."""
        ...

    def root(self) -> Graph:
        """The outermost graph."""
        ...

    def enable(self, node: Node, outcomes: Outcomes) -> bool | Always:
        """Whether a node runs; ALWAYS means: also in a bake that is being cancelled."""
        ...

    def task(
        self, node: Node, outcomes: Outcomes, state: Mapping[str, str] | None = None
    ) -> ResolvedTask:
        """Evaluate a TASK, STATEFUL or POST; ``state`` is what a POST's main has saved."""
        ...

    def open(self, node: Node, outcomes: Outcomes) -> Graph:
        """Evaluate the inputs of a CALL, and return the graph below it."""
        ...

    def expand(self, node: Node, outcomes: Outcomes) -> tuple[Node, ...]:
        """The rows of a GROUP: nodes beside it, with its needs, whose ``group`` is its id."""
        ...

    def outputs(self, node: Node, inner: Outcomes) -> dict[str, str]:
        """The outputs of a CALL, of the outcomes of all nodes of its graph."""
        ...

    def local(self, node: Node, outcomes: Outcomes) -> LocalCommand:
        """Evaluate a LOCAL."""
        ...
