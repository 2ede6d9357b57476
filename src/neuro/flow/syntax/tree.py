"""The typed tree of every kind of flow file.

Each class is a mapping of a file; each field with a key's metadata (``keys``) is one of its keys.
Fields are None (or empty mappings) where the key is absent or null; ``specified`` tells which
keys are present, null included: mixins need to know.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from neuro.flow.source import Position
from neuro.flow.syntax.job_types import HTTP_PORT, JOB_NAME, TAG, WORKING_DIRECTORY
from neuro.flow.syntax.keys import (
    Choice,
    ListOf,
    MapOf,
    Scalar,
    Section,
    Special,
    Stage,
    Table,
    fill,
    key,
    table_key,
    tree_node,
)
from neuro.flow.syntax.types import (
    ATTEMPTS,
    BACKOFF,
    BAKE_LIFE_SPAN,
    BOOL,
    CRON,
    ENABLE,
    ID,
    IMAGE_REF,
    INT,
    LIFE_SPAN,
    LOCAL_PATH,
    PORT_PAIR,
    PRIMITIVE,
    REMOTE_PATH,
    RESTART,
    SCHEDULE_TIMEOUT,
    SIMPLE_BOOL,
    SIMPLE_ID,
    SIMPLE_STR,
    STR,
    TIME_DELTA,
    TIME_ZONE,
    URI,
    ListValue,
    MapValue,
    Value,
)

CACHE_STRATEGIES: Final = ("default", "inherit", "none")
NEED_LEVELS: Final = ("running", "completed")
INPUT_TYPES: Final = ("str", "int", "float", "bool")
OVERLAPS: Final = ("skip", "allow", "cancel")
CATCH_UPS: Final = ("none", "last", "all")
ACTION_KINDS: Final = ("live", "batch", "stateful", "local")

_SECTION: Final = (Stage.SECTIONS, Stage.SECTIONS)
_FILE: Final = (None, Stage.FILE)
_UNIT: Final = (Stage.JOB, Stage.TASK)


@tree_node(init=False)
class TreeNode:
    """A mapping of a file."""

    at: Position
    # The keys that are present, null included.
    specified: frozenset[str] = frozenset()
    key_at: Mapping[str, Position] = field(default_factory=dict)

    def __init__(self, *, at: Position, **values: Any) -> None:
        fill(self, {"at": at, **values})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")


@tree_node(init=False)
class Cache(TreeNode):
    """``cache``: how long a task's outcome stands for running it again."""

    strategy: str | None = key(
        Choice("cache strategy", CACHE_STRATEGIES),
        "Whether an earlier success of the same task is used instead of running it.",
    )
    life_span: Value | None = key(
        Scalar(TIME_DELTA), "How long an earlier success can be used.", None, Stage.FILE
    )
    key: Value | None = key(
        Scalar(STR), "Any string: when it changes, no earlier success is used.", None, Stage.FILE
    )


@tree_node(init=False)
class TaskCache(Cache):
    """``cache`` of a task or a call."""

    life_span: Value | None = key(
        Scalar(TIME_DELTA), "How long an earlier success can be used.", None, Stage.ROW
    )
    key: Value | None = key(
        Scalar(STR), "Any string: when it changes, no earlier success is used.", None, Stage.TASK
    )


@tree_node(init=False)
class LiveDefaults(TreeNode):
    """``defaults`` of a live file: what its jobs have unless they say otherwise."""

    env: MapValue | None = key(MapOf(STR), "Environment variables of every job.", *_SECTION)
    tags: ListValue | None = key(ListOf(TAG), "Tags of every job.", *_SECTION)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "Volumes of every job: references to volumes.", *_SECTION
    )
    workdir: Value | None = key(
        Scalar(WORKING_DIRECTORY), "The jobs' current directory.", *_SECTION
    )
    life_span: Value | None = key(
        Scalar(LIFE_SPAN), "After how long a job is ended: seconds, or 1d2h3m4s.", *_SECTION
    )
    preset: Value | None = key(Scalar(STR), "The resources preset of the jobs.", *_SECTION)
    schedule_timeout: Value | None = key(
        Scalar(SCHEDULE_TIMEOUT), "How long a job may wait for resources.", *_SECTION
    )


@tree_node(init=False)
class Defaults(LiveDefaults):
    """``defaults`` of a batch or of a project."""

    fail_fast: Value | None = key(
        Scalar(BOOL), "Whether the first failed task cancels the rest.", *_FILE
    )
    max_parallel: Value | None = key(Scalar(INT), "How many tasks may run at once.", *_FILE)
    cache: Cache | None = key(Section("Cache"), "Cache settings of the tasks.")


@tree_node(init=False)
class Image(TreeNode):
    """``images.<id>``: an image to run, and how to build it."""

    ref: Value | None = key(
        Scalar(IMAGE_REF),
        "The image: 'image:name:tag' of the platform's registry, or any other reference.",
        Stage.SECTIONS,
        Stage.SECTIONS,
        required=True,
    )
    context: Value | None = key(
        Scalar(STR), "Build context: a folder of the workspace, or a storage: URI.", *_SECTION
    )
    dockerfile: Value | None = key(
        Scalar(STR), "The Dockerfile: a file of the workspace, or a storage: URI.", *_SECTION
    )
    build_args: ListValue | None = key(ListOf(STR), "KEY=VALUE arguments of the build.", *_SECTION)
    env: MapValue | None = key(MapOf(STR), "Environment variables of the build.", *_SECTION)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "Volumes mounted while building.", *_SECTION
    )
    build_preset: Value | None = key(Scalar(STR), "The preset to build with.", *_SECTION)
    force_rebuild: Value | None = key(
        Scalar(BOOL), "Build even if the image is in the registry.", *_SECTION
    )
    extra_kaniko_args: Value | None = key(Scalar(STR), "More arguments for the builder.", *_SECTION)


@tree_node(init=False)
class Volume(TreeNode):
    """``volumes.<id>``: a folder of the storage, and where it is mounted."""

    remote: Value | None = key(
        Scalar(URI), "The storage's folder: storage:path, or disk:name.", *_SECTION, required=True
    )
    mount: Value | None = key(
        Scalar(REMOTE_PATH), "Where jobs see it.", Stage.SECTIONS, Stage.SECTIONS, required=True
    )
    local: Value | None = key(
        Scalar(LOCAL_PATH), "The folder of the workspace to upload and download.", *_SECTION
    )
    read_only: Value | None = key(Scalar(BOOL), "Whether jobs can only read it.", *_SECTION)


@tree_node(init=False)
class Param(TreeNode):
    """``params.<name>``: without a default it must be given."""

    default: Value | None = key(
        Scalar(STR), "The value if none is given.", Stage.PARAMS, Stage.CONSTANT
    )
    # Nobody evaluates it, so it may read what it likes.
    descr: Value | None = key(Scalar(STR), "What it is for.")


@tree_node(init=False)
class Input(TreeNode):
    """``inputs.<name>`` of an action: without a default it must be given."""

    descr: Value | None = key(Scalar(SIMPLE_STR), "What it is for.")
    # The default keeps its YAML type, which ``type`` names.
    default: Value | None = key(Special("input default"), "The value if none is given.")
    type: str = key(Choice("input type", INPUT_TYPES), "The input's type.", default="str")


@tree_node(init=False)
class Output(TreeNode):
    """``outputs.<name>`` of an action."""

    descr: Value | None = key(Scalar(SIMPLE_STR), "What it is.")
    value: Value | None = key(Scalar(STR), "The value, of a batch action.", None, Stage.OUTPUTS)


@tree_node(init=False)
class ExecUnit(TreeNode):
    """The settings of a container. ``bash`` and ``python`` are ``cmd`` with that type."""

    title: Value | None = key(Scalar(STR), "The job's description.", *_UNIT)
    name: Value | None = key(Scalar(JOB_NAME), "The job's name.", *_UNIT)
    image: Value | None = key(Scalar(IMAGE_REF), "The image to run.", *_UNIT)
    preset: Value | None = key(Scalar(STR), "The resources preset to run with.", *_UNIT)
    schedule_timeout: Value | None = key(
        Scalar(SCHEDULE_TIMEOUT), "How long to wait for resources.", *_UNIT
    )
    entrypoint: Value | None = key(Scalar(STR), "Replaces the image's entrypoint.", *_UNIT)
    cmd: Value | None = key(
        Special("command"), "The command, without a shell: $X and pipes are literal.", *_UNIT
    )
    workdir: Value | None = key(Scalar(WORKING_DIRECTORY), "The current directory.", *_UNIT)
    env: MapValue | None = key(MapOf(STR), "Environment variables.", *_UNIT)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "References to volumes, such as volumes.code.ref.", *_UNIT
    )
    tags: ListValue | None = key(ListOf(TAG), "Tags.", *_UNIT)
    life_span: Value | None = key(
        Scalar(LIFE_SPAN), "After how long it is ended: seconds, or 1d2h3m4s.", *_UNIT
    )
    http_port: Value | None = key(
        Scalar(HTTP_PORT), "The container's port that the platform serves over HTTP.", *_UNIT
    )
    http_auth: Value | None = key(Scalar(BOOL), "Whether that asks for a login.", *_UNIT)
    pass_config: Value | None = key(
        Scalar(BOOL), "Whether the job can use the platform as you.", *_UNIT
    )
    restart: Value | None = key(Scalar(RESTART), "When the job is started again.", *_UNIT)


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
class BatchMixin(Mixin):
    """``mixins.<id>`` of a batch."""

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
class TaskCall(TreeNode):
    """An element of ``tasks`` that calls an action, or a module."""

    id: Value | None = key(Scalar(ID), "What other tasks name in needs.", None, Stage.GRAPH)
    action: Value | None = key(
        Scalar(SIMPLE_STR), "The action: ws:path, gh:owner/repo@version, or neuro:name@version."
    )
    module: Value | None = key(Scalar(SIMPLE_STR), "The module: ws:path.")
    args: MapValue | None = key(MapOf(PRIMITIVE), "Its inputs' values.", None, Stage.TASK)
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
class ProjectFile(TreeNode):
    """``project.yml``."""

    id: Value | None = key(Scalar(SIMPLE_ID), "The project's id.", required=True)
    project_name: Value | None = key(Scalar(SIMPLE_STR), "The platform's project to use.")
    owner: Value | None = key(Scalar(SIMPLE_STR), "The user the project belongs to.")
    role: Value | None = key(Scalar(SIMPLE_STR), "Deprecated, and ignored.")
    defaults: Defaults | None = key(Section("Defaults"), "Defaults of every workflow.")
    images: Mapping[str, Image] = table_key(Table("Image"), "Images of every workflow.")
    volumes: Mapping[str, Volume] = table_key(Table("Volume"), "Volumes of every workflow.")
    mixins: Mapping[str, Mixin] = table_key(Table("Mixin"), "Mixins of every workflow.")


@tree_node(init=False)
class LiveFile(TreeNode):
    """``live.yml``."""

    kind: str = key(Choice("kind", ("live",)), "What the file is.", required=True, default="live")
    id: Value | None = key(Scalar(SIMPLE_ID), "The workflow's id.")
    title: Value | None = key(Scalar(SIMPLE_STR), "The workflow's title.")
    defaults: LiveDefaults | None = key(Section("LiveDefaults"), "Defaults of the jobs.")
    images: Mapping[str, Image] = table_key(Table("Image"), "Images by id.")
    volumes: Mapping[str, Volume] = table_key(Table("Volume"), "Volumes by id.")
    mixins: Mapping[str, LiveMixin] = table_key(Table("LiveMixin"), "Keys that jobs take in.")
    jobs: Mapping[str, LiveJob | Call] = table_key(
        Special("jobs"), "The jobs, by id.", required=True
    )


@tree_node(init=False)
class Schedule(TreeNode):
    """``schedule``: when the server starts the batch by itself."""

    cron: Value | None = key(
        Scalar(CRON), "Minute, hour, day, month and weekday: 0 3 * * 1-5.", required=True
    )
    timezone: Value | None = key(Scalar(TIME_ZONE), "The time zone; UTC by default.")
    catch_up: str | None = key(
        Choice("way to catch up", CATCH_UPS),
        "Which of the starts missed while the server was down are made up for.",
    )
    overlap: str | None = key(
        Choice("overlap", OVERLAPS), "What to do when the previous bake still runs."
    )


@tree_node(init=False)
class Concurrency(TreeNode):
    """``concurrency``: bakes of one group run one after the other; a string alone is the group."""

    group: Value | None = key(Scalar(STR), "The group's name.", None, Stage.SECTIONS, required=True)
    cancel_running: Value | None = key(
        Scalar(BOOL), "Whether a new bake cancels those before it.", None, Stage.SECTIONS
    )


@tree_node(init=False)
class BatchFile(TreeNode):
    """A batch: tasks that need each other."""

    kind: str = key(Choice("kind", ("batch",)), "What the file is.", required=True, default="batch")
    id: Value | None = key(Scalar(SIMPLE_ID), "The workflow's id.")
    title: Value | None = key(Scalar(SIMPLE_STR), "The workflow's title.")
    life_span: Value | None = key(
        Scalar(BAKE_LIFE_SPAN), "How long all of it may take.", None, Stage.CONSTANT
    )
    schedule: Schedule | None = key(
        Section("Schedule"), "When the server starts the batch by itself."
    )
    concurrency: Concurrency | None = key(
        Special("concurrency"), "Which bakes run one after the other: a group's name, or more."
    )
    params: Mapping[str, Param] = table_key(Special("params"), "Values given when starting it.")
    defaults: Defaults | None = key(Section("Defaults"), "Defaults of the tasks.")
    images: Mapping[str, Image] = table_key(Table("Image"), "Images by id.")
    volumes: Mapping[str, Volume] = table_key(Table("Volume"), "Volumes by id.")
    mixins: Mapping[str, BatchMixin] = table_key(Table("BatchMixin"), "Keys that tasks take in.")
    tasks: tuple[Task | TaskCall, ...] = key(
        Special("tasks"), "The tasks.", required=True, default=()
    )


@tree_node(init=False)
class ActionFile(TreeNode):
    """An action of any kind, with what all kinds have; the kind decides which keys there are."""

    kind: str = key(
        Choice("action kind", ACTION_KINDS), "What the action is.", required=True, default=""
    )
    name: Value | None = key(Scalar(SIMPLE_STR), "The action's name.")
    author: Value | None = key(Scalar(SIMPLE_STR), "Who wrote it.")
    descr: Value | None = key(Scalar(SIMPLE_STR), "What it does.")
    inputs: Mapping[str, Input] = table_key(Special("inputs"), "What the action is called with.")
    outputs: Mapping[str, Output] = field(default_factory=dict)
    job: ActionJob | None = None
    tasks: tuple[Task | TaskCall, ...] = ()
    images: Mapping[str, Image] = field(default_factory=dict)
    cache: Cache | None = None
    main: ExecUnit | None = None
    post: ExecUnit | None = None
    post_if: Value | None = None
    cmd: Value | None = None


@tree_node(init=False)
class LiveAction(ActionFile):
    """An action that is a job of live files."""

    job: ActionJob | None = key(Section("ActionJob"), "The job.", required=True)


@tree_node(init=False)
class BatchAction(ActionFile):
    """An action that is a graph of tasks."""

    outputs: Mapping[str, Output] = table_key(Special("outputs"), "What the action gives.")
    tasks: tuple[Task | TaskCall, ...] = key(
        Special("tasks"), "The tasks.", required=True, default=()
    )
    images: Mapping[str, Image] = table_key(Table("Image"), "Images by id.")
    cache: Cache | None = key(Section("Cache"), "Cache settings of the tasks.")


@tree_node(init=False)
class StatefulAction(ActionFile):
    """An action with a part that runs in place, and one that runs when all is over."""

    outputs: Mapping[str, Output] = table_key(Special("outputs"), "What the action gives.")
    cache: Cache | None = key(Section("Cache"), "Accepted, and without effect.")
    main: ExecUnit | None = key(Section("ExecUnit"), "What runs in place.", required=True)
    post: ExecUnit | None = key(Section("ExecUnit"), "What runs when all is over.")
    post_if: Value | None = key(
        Scalar(ENABLE), "Whether post runs; always() by default.", None, Stage.TASK
    )


@tree_node(init=False)
class LocalAction(ActionFile):
    """An action that runs a command on the machine that starts the batch."""

    outputs: Mapping[str, Output] = table_key(Special("outputs"), "What the action gives.")
    cmd: Value | None = key(Special("command"), "The command.", None, Stage.LOCAL, required=True)
