"""The sections of flow files: caches, defaults, images, volumes, parameters, inputs, outputs."""

from typing import Final

from neuro.flow.syntax.job_types import TAG, WORKING_DIRECTORY
from neuro.flow.syntax.keys import (
    Choice,
    ListOf,
    MapOf,
    Scalar,
    Section,
    Special,
    Stage,
    key,
    tree_node,
)
from neuro.flow.syntax.tree.node import FILE_STAGES, SECTION_STAGES, TreeNode
from neuro.flow.syntax.types import (
    BOOL,
    IMAGE_REF,
    INT,
    LIFE_SPAN,
    LOCAL_PATH,
    REMOTE_PATH,
    SCHEDULE_TIMEOUT,
    SIMPLE_STR,
    STR,
    TIME_DELTA,
    URI,
    ListValue,
    MapValue,
    Value,
)

CACHE_STRATEGIES: Final = ("default", "inherit", "none")
INPUT_TYPES: Final = ("str", "int", "float", "bool")


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

    env: MapValue | None = key(MapOf(STR), "Environment variables of every job.", *SECTION_STAGES)
    tags: ListValue | None = key(ListOf(TAG), "Tags of every job.", *SECTION_STAGES)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "Volumes of every job: references to volumes.", *SECTION_STAGES
    )
    workdir: Value | None = key(
        Scalar(WORKING_DIRECTORY), "The jobs' current directory.", *SECTION_STAGES
    )
    life_span: Value | None = key(
        Scalar(LIFE_SPAN), "After how long a job is ended: seconds, or 1d2h3m4s.", *SECTION_STAGES
    )
    preset: Value | None = key(Scalar(STR), "The resources preset of the jobs.", *SECTION_STAGES)
    schedule_timeout: Value | None = key(
        Scalar(SCHEDULE_TIMEOUT), "How long a job may wait for resources.", *SECTION_STAGES
    )


@tree_node(init=False)
class Defaults(LiveDefaults):
    """``defaults`` of a batch or of a project."""

    fail_fast: Value | None = key(
        Scalar(BOOL), "Whether the first failed task cancels the rest.", *FILE_STAGES
    )
    max_parallel: Value | None = key(Scalar(INT), "How many tasks may run at once.", *FILE_STAGES)
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
        Scalar(STR), "Build context: a folder of the workspace, or a storage: URI.", *SECTION_STAGES
    )
    dockerfile: Value | None = key(
        Scalar(STR), "The Dockerfile: a file of the workspace, or a storage: URI.", *SECTION_STAGES
    )
    build_args: ListValue | None = key(
        ListOf(STR), "KEY=VALUE arguments of the build.", *SECTION_STAGES
    )
    env: MapValue | None = key(MapOf(STR), "Environment variables of the build.", *SECTION_STAGES)
    volumes: ListValue | None = key(
        ListOf(STR, optional=True), "Volumes mounted while building.", *SECTION_STAGES
    )
    build_preset: Value | None = key(Scalar(STR), "The preset to build with.", *SECTION_STAGES)
    force_rebuild: Value | None = key(
        Scalar(BOOL), "Build even if the image is in the registry.", *SECTION_STAGES
    )
    extra_kaniko_args: Value | None = key(
        Scalar(STR), "More arguments for the builder.", *SECTION_STAGES
    )


@tree_node(init=False)
class Volume(TreeNode):
    """``volumes.<id>``: a folder of the storage, and where it is mounted."""

    remote: Value | None = key(
        Scalar(URI),
        "The storage's folder: storage:path, or disk:name.",
        *SECTION_STAGES,
        required=True,
    )
    mount: Value | None = key(
        Scalar(REMOTE_PATH), "Where jobs see it.", Stage.SECTIONS, Stage.SECTIONS, required=True
    )
    local: Value | None = key(
        Scalar(LOCAL_PATH), "The folder of the workspace to upload and download.", *SECTION_STAGES
    )
    read_only: Value | None = key(Scalar(BOOL), "Whether jobs can only read it.", *SECTION_STAGES)


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
