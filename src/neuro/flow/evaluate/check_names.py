"""Which names the expressions of a batch may read at each stage, as far as a file tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from neuro.flow.evaluate.contexts import GitRecord, ImageRecord, ProjectRecord, VolumeRecord
from neuro.flow.evaluate.mixins import UnknownMixins, overlay
from neuro.flow.evaluate.static import Members, Names, Shape, record, values_of
from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Stage

if TYPE_CHECKING:
    from neuro.flow.evaluate.mixins import Mixins
    from neuro.flow.syntax.types import MapValue, Value

Stages = Mapping[Stage | None, tuple[str, ...]]

# The names that each stage of a batch sees.
PROJECT = ("project", "flow", "params", "git")
DEFAULTS = ("env", "tags", "volumes", "images")
_MATRIX = ("strategy", "matrix")
BATCH_STAGES: Stages = {
    Stage.CONSTANT: (),
    Stage.GRAPH: ("matrix",),
    Stage.SECTIONS: PROJECT,
    Stage.FILE: (*PROJECT, *DEFAULTS),
    Stage.MATRIX: (*PROJECT, *DEFAULTS, "strategy", "needs"),
    Stage.ROW: (*PROJECT, *DEFAULTS, *_MATRIX),
    Stage.TASK: (*PROJECT, *DEFAULTS, *_MATRIX, "needs", "state"),
}
_ACTION = ("inputs", "strategy", "git", "flow")
ACTION_STAGES: Stages = {
    Stage.CONSTANT: (),
    Stage.GRAPH: ("matrix",),
    Stage.SECTIONS: _ACTION,
    Stage.FILE: (*_ACTION, "images"),
    Stage.MATRIX: (*_ACTION, "images", "needs"),
    Stage.ROW: (*_ACTION, "images", "matrix"),
    Stage.TASK: (*_ACTION, "images", "matrix", "needs", "state"),
    Stage.OUTPUTS: (*_ACTION, "images", "needs"),
}
STRATEGY: Shape = {"fail_fast": None, "max_parallel": None}


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """The surroundings of a list of tasks: the names that all of it reads, and its mixins."""

    names: Names
    stages: Stages
    # None where there are none, as in actions.
    mixins: Mixins | None

    def at(self, stage: Stage | None, own: Names) -> Names:
        """The names at a stage, a task's own ones included."""
        return {name: own.get(name) for name in self.stages.get(stage, ())}


# Who calls a module that is checked for itself: nobody knows what there is.
ANYBODY: Final = Around(
    dict.fromkeys((*PROJECT, *DEFAULTS, "multi", *_MATRIX, "needs", "state")), {}, UnknownMixins()
)


def common_names(
    file: tree.LiveFile | tree.BatchFile, project: tree.ProjectFile | None, flow: type
) -> dict[str, Shape]:
    """The names that live files and batches have in common."""
    defaults: tree.LiveDefaults = file.defaults or tree.LiveDefaults(at=file.at)
    if project is not None and project.defaults is not None:
        defaults = overlay(defaults, project.defaults)
    return {
        "project": record(ProjectRecord),
        "flow": record(flow),
        "git": record(GitRecord),
        "env": _keys(defaults.env),
        "tags": None,
        "volumes": dict.fromkeys(by_id(file, project, "volumes"), record(VolumeRecord)),
        "images": dict.fromkeys(by_id(file, project, "images"), record(ImageRecord)),
    }


def by_id(
    file: tree.LiveFile | tree.BatchFile, project: tree.ProjectFile | None, section: str
) -> dict[str, Any]:
    """A section of the file, with what the project's file has besides."""
    inherited = getattr(project, section) if project is not None else {}
    return {**inherited, **getattr(file, section)}


def file_values(
    file: tree.BatchFile, project: tree.ProjectFile | None
) -> Iterator[tuple[Stage | None, Value]]:
    """The values outside of tasks and mixins."""
    sections: list[tree.TreeNode | None] = [
        *by_id(file, project, "images").values(),
        *by_id(file, project, "volumes").values(),
        *file.params.values(),
        file.defaults,
        file.concurrency,
        project.defaults if project is not None else None,
    ]
    for section in sections:
        if section is not None:
            yield from values_of(section, batch=True)
    if file.life_span is not None:
        yield Stage.CONSTANT, file.life_span


def any_task() -> dict[str, Shape]:
    """A task's own names, where nobody knows which task."""
    return {"strategy": STRATEGY, "matrix": None, "needs": None, "state": None}


def _keys(values: MapValue | None) -> Shape:
    if values is None:
        return {}
    found = [key for key, _ in values.parts]
    return None if None in found else {key: None for key in found if key is not None}


def matrix_keys(matrix: tree.Matrix) -> tuple[str, ...]:
    """The keys that rows have: without lists of values, those of the rows to include."""
    names = tuple(name for name, values in matrix.products.items() if values.parts)
    return names if names or not matrix.include else tuple(matrix.include[0].values)


def matrix_members(strategy: tree.Strategy | None) -> Shape:
    """The names that a task reads in `matrix`."""
    if strategy is None or strategy.matrix is None:
        # One that could not be read has keys that nobody knows.
        return None if strategy is not None and "matrix" in strategy.specified else {}
    empty = {name for name, values in strategy.matrix.products.items() if not values.parts}
    known = {**dict.fromkeys(matrix_keys(strategy.matrix)), "ORDINAL": None}
    return Members(known, dict.fromkeys(empty, "An empty list has no effect: remove the key."))
