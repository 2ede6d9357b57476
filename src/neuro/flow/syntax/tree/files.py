"""The flow files: a project, live and batch workflows, actions; what a batch says of its runs."""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from neuro.flow.syntax.keys import (
    Choice,
    Scalar,
    Section,
    Special,
    Stage,
    Table,
    key,
    table_key,
    tree_node,
)
from neuro.flow.syntax.tree.node import TreeNode
from neuro.flow.syntax.tree.sections import (
    Cache,
    Defaults,
    Image,
    Input,
    LiveDefaults,
    Output,
    Param,
    Volume,
)
from neuro.flow.syntax.tree.units import (
    ActionJob,
    BatchMixin,
    Call,
    ExecUnit,
    LiveJob,
    LiveMixin,
    Mixin,
    Task,
    TaskCall,
)
from neuro.flow.syntax.types import (
    BAKE_LIFE_SPAN,
    BOOL,
    CRON,
    ENABLE,
    SIMPLE_ID,
    SIMPLE_STR,
    STR,
    TIME_ZONE,
    Value,
)

OVERLAPS: Final = ("skip", "allow", "cancel")
CATCH_UPS: Final = ("none", "last", "all")
ACTION_KINDS: Final = ("live", "batch", "stateful", "local")


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
