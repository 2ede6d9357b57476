"""Jobs, tasks and calls, and the keys that they share."""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from neuro.flow.syntax.job_types import HTTP_PORT, JOB_NAME, TAG, WORKING_DIRECTORY
from neuro.flow.syntax.keys import (
    ListOf,
    MapOf,
    Scalar,
    Section,
    Special,
    Stage,
    key,
    table_key,
    tree_node,
)
from neuro.flow.syntax.tree.node import UNIT_STAGES, TreeNode
from neuro.flow.syntax.tree.sections import Param, TaskCache
from neuro.flow.syntax.types import (
    ATTEMPTS,
    BACKOFF,
    BOOL,
    ENABLE,
    ID,
    IMAGE_REF,
    INT,
    LIFE_SPAN,
    PORT_PAIR,
    PRIMITIVE,
    RESTART,
    SCHEDULE_TIMEOUT,
    SIMPLE_BOOL,
    SIMPLE_STR,
    STR,
    TIME_DELTA,
    ListValue,
    MapValue,
    Value,
)

NEED_LEVELS: Final = ("running", "completed")


@tree_node(init=False)
class ExecUnit(TreeNode):
    """The settings of a container. ``bash`` and ``python`` are ``cmd`` with that type."""

    title: Value | None = key(Scalar(STR), "The job's description.", *UNIT_STAGES)
    name: Value | None = key(Scalar(JOB_NAME), "The job's name.", *UNIT_STAGES)
    image: Value | None = key(Scalar(IMAGE_REF), "The image to run.", *UNIT_STAGES)
    preset: Value | None = key(Scalar(STR), "The resources preset to run with.", *UNIT_STAGES)
    schedule_timeout: Value | None = key(
        Scalar(SCHEDULE_TIMEOUT), "How long to wait for resources.", *UNIT_STAGES
    )
    entrypoint: Value | None = key(Scalar(STR), "Replaces the image's entrypoint.", *UNIT_STAGES)
    cmd: Value | None = key(
        Special("command"), "The command, without a shell: $X and pipes are literal.", *UNIT_STAGES
    )
    workdir: Value | None = key(Scalar(WORKING_DIRECTORY), "The current directory.", *UNIT_STAGES)
    env: MapValue | None = key(MapOf(STR), "Environment variables.", *UNIT_STAGES)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "References to volumes, such as volumes.code.ref.", *UNIT_STAGES
    )
    tags: ListValue | None = key(ListOf(TAG), "Tags.", *UNIT_STAGES)
    life_span: Value | None = key(
        Scalar(LIFE_SPAN), "After how long it is ended: seconds, or 1d2h3m4s.", *UNIT_STAGES
    )
    http_port: Value | None = key(
        Scalar(HTTP_PORT), "The container's port that the platform serves over HTTP.", *UNIT_STAGES
    )
    http_auth: Value | None = key(Scalar(BOOL), "Whether that asks for a login.", *UNIT_STAGES)
    pass_config: Value | None = key(
        Scalar(BOOL), "Whether the job can use the platform as you.", *UNIT_STAGES
    )
    restart: Value | None = key(Scalar(RESTART), "When the job is started again.", *UNIT_STAGES)


@tree_node(init=False)
class Mixin(ExecUnit):
    """``mixins.<id>`` of a project: keys that others take in."""

    mixins: ListValue | None = key(
        ListOf(STR), "Names of mixins to take keys from.", Stage.CONSTANT, Stage.CONSTANT
    )


@tree_node(init=False)
class LiveUnit(Mixin):
    """A job of a live file, as far as a mixin can give it."""

    detach: Value | None = key(Scalar(BOOL), "Whether not to follow the job.", Stage.JOB)
    browse: Value | None = key(
        Scalar(BOOL), "Whether to say where the job's web page is.", Stage.JOB
    )
    port_forward: ListValue | None = key(
        ListOf(PORT_PAIR), 'Ports to forward: "LOCAL:REMOTE".', Stage.JOB
    )
    multi: Value | None = key(
        Scalar(SIMPLE_BOOL), "Whether several of the job may run at once, by suffix."
    )
    params: Mapping[str, Param] = table_key(Special("params"), "Values given when running it.")


@tree_node(init=False)
class LiveMixin(LiveUnit):
    """``mixins.<id>`` of a live file."""


@tree_node(init=False)
class LiveJob(LiveUnit):
    """``jobs.<id>``: a job of a live file, and the job of a live action."""


@tree_node(init=False)
class ActionJob(ExecUnit):
    """``job`` of a live action: a live job without params."""

    mixins: ListValue | None = key(
        ListOf(STR), "Names of mixins (in modules only).", Stage.CONSTANT, Stage.CONSTANT
    )
    detach: Value | None = key(Scalar(BOOL), "Whether not to follow the job.", Stage.JOB)
    browse: Value | None = key(
        Scalar(BOOL), "Whether to say where the job's web page is.", Stage.JOB
    )
    port_forward: ListValue | None = key(
        ListOf(PORT_PAIR), 'Ports to forward: "LOCAL:REMOTE".', Stage.JOB
    )
    multi: Value | None = key(
        Scalar(SIMPLE_BOOL), "Whether several of the job may run at once, by suffix."
    )


@tree_node(init=False)
class Call(TreeNode):
    """A job of a live file that calls an action, or a module: one of the two is there."""

    action: Value | None = key(
        Scalar(SIMPLE_STR), "The action: ws:path, gh:owner/repo@version, or neuro:name@version."
    )
    module: Value | None = key(Scalar(SIMPLE_STR), "The module: ws:path.")
    args: MapValue | None = key(MapOf(PRIMITIVE), "Its inputs' values.", Stage.JOB, Stage.TASK)
    params: Mapping[str, Param] = table_key(Special("params"), "Values given when running it.")


@tree_node(init=False)
class MatrixRow(TreeNode):
    """An entry of ``include`` or ``exclude``."""

    values: Mapping[str, Value] = field(default_factory=dict)


@tree_node(init=False)
class Matrix(TreeNode):
    """``strategy.matrix``: products by key, with rows to leave out and rows to add."""

    products: Mapping[str, ListValue] = field(default_factory=dict)
    exclude: tuple[MatrixRow, ...] = ()
    include: tuple[MatrixRow, ...] = ()


@tree_node(init=False)
class Strategy(TreeNode):
    """``strategy``: the task's rows, and how they run."""

    matrix: Matrix | None = key(
        Special("matrix"),
        "Lists of values: the task runs once for each combination.",
        required=True,
    )
    fail_fast: Value | None = key(
        Scalar(BOOL), "Whether the first failed task cancels the rest.", None, Stage.MATRIX
    )
    max_parallel: Value | None = key(Scalar(INT), "How many may run at once.", None, Stage.MATRIX)


@tree_node(init=False)
class Needs(TreeNode):
    """``needs``: ids of tasks, each with the level to wait for."""

    parts: tuple[tuple[Value, str], ...] = ()


@tree_node(init=False)
class Retry(TreeNode):
    """``retry``: how often a task that fails is tried; a number alone is ``attempts``."""

    attempts: Value | None = key(
        Scalar(ATTEMPTS), "How often it is tried in all: 1 to 100.", None, Stage.TASK, required=True
    )
    delay: Value | None = key(
        Scalar(TIME_DELTA), "The pause before the second try; none by default.", None, Stage.TASK
    )
    backoff: Value | None = key(
        Scalar(BACKOFF),
        "The factor by which each pause is longer than the one before.",
        None,
        Stage.TASK,
    )


@tree_node(init=False)
class GraphPart(TreeNode):
    """What a task, a call and a mixin of a batch say of the graph."""

    needs: Needs | None = key(Special("needs"), "The tasks to wait for.", None, Stage.GRAPH)
    strategy: Strategy | None = key(Section("Strategy"), "The task's rows.")
    enable: Value | None = key(
        Scalar(ENABLE), "Whether the task runs; success() by default.", None, Stage.TASK
    )
    cache: TaskCache | None = key(Section("TaskCache"), "Cache settings of the task.")
    continue_on_error: Value | None = key(
        Scalar(BOOL),
        "Whether the others go on as if it had succeeded, when it fails.",
        None,
        Stage.ROW,
    )


@tree_node(init=False)
class BatchMixin(GraphPart, Mixin):
    """``mixins.<id>`` of a batch."""

    retry: Retry | None = key(
        Special("retry"), "How often it is tried: a number, or attempts, delay and backoff."
    )
    timeout: Value | None = key(
        Scalar(TIME_DELTA),
        "How long one try may run before it is ended, as failed.",
        None,
        Stage.TASK,
    )


@tree_node(init=False)
class Task(BatchMixin):
    """An element of ``tasks`` that runs a container."""

    id: Value | None = key(Scalar(ID), "What other tasks name in needs.", None, Stage.GRAPH)


@tree_node(init=False)
class TaskCall(GraphPart):
    """An element of ``tasks`` that calls an action, or a module."""

    id: Value | None = key(Scalar(ID), "What other tasks name in needs.", None, Stage.GRAPH)
    action: Value | None = key(
        Scalar(SIMPLE_STR), "The action: ws:path, gh:owner/repo@version, or neuro:name@version."
    )
    module: Value | None = key(Scalar(SIMPLE_STR), "The module: ws:path.")
    args: MapValue | None = key(MapOf(PRIMITIVE), "Its inputs' values.", None, Stage.TASK)
