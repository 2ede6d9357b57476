"""Finds the problems of batches: of their graphs, and of all that their tasks read and call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.domain.errors import InvalidInput
from neuro.domain.flows import check_batch_name
from neuro.flow.evaluate.actions import Action, Actions, check_literals, check_names
from neuro.flow.evaluate.calls import (
    BATCH,
    find_called,
    reference_of,
    report_circle,
    report_no_mixins,
)
from neuro.flow.evaluate.check_names import (
    ACTION_STAGES,
    ANYBODY,
    BATCH_STAGES,
    STRATEGY,
    Around,
    any_task,
    by_id,
    common_names,
    file_values,
    matrix_members,
)
from neuro.flow.evaluate.contexts import (
    ActionFlowRecord,
    FlowRecord,
    GitRecord,
    ImageRecord,
    VolumeRecord,
)
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.evaluate.static import Names, Refused, Shape, check_template, record, values_of
from neuro.flow.evaluate.units import Owner, report_no_image
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Stage

if TYPE_CHECKING:
    from neuro.flow.evaluate.batch.ground import Element, Frame, Ground
    from neuro.flow.evaluate.batch.workflow import BatchWorkflow
    from neuro.flow.evaluate.check_graph import SeenNeeds
    from neuro.flow.syntax.types import Value


class TaskCheck:
    """Checks what batches and actions of one workspace read and call.

    Each file is looked at once for each way it is called, with nothing known of its inputs: so
    also what no bake evaluates is checked, such as the second half of an `or`. The graphs that
    expressions read are the planner's.
    """

    def __init__(self, actions: Actions, report: Report) -> None:
        self._actions = actions
        self._report = report
        self._readable = not report.problems
        self._checked: set[tuple[Path, Around | None]] = set()
        self._ground: Ground | None = None
        # The actions that are being checked, each in the one before it, with their references.
        self._way: list[tuple[Path, str]] = []

    # Files

    def batch(self, name: str, file: tree.BatchFile, project: tree.ProjectFile | None) -> Around:
        """Check what a batch says outside of its tasks; return what `tasks` is to be given."""
        try:
            check_batch_name(name)
        except InvalidInput as error:
            self._report.add(str(error), file.at)
        names = common_names(file, project, FlowRecord)
        names["flow"] = {**(names["flow"] or {}), "life_span": None}
        names["params"] = dict.fromkeys(file.params)
        names["volumes"] = self._volumes(file, project)
        mixins = Mixins({**(project.mixins if project is not None else {}), **file.mixins})
        around = Around(names, BATCH_STAGES, mixins)
        for stage, value in file_values(file, project):
            self._value(value, around.at(stage, names))
        mixins.check(file.mixins, self._report)
        every: Names = {**names, **any_task()}
        for mixin in file.mixins.values():
            for stage, value in values_of(mixin, batch=True):
                self._value(value, around.at(stage, every))
        return around

    def tasks(self, around: Around, workflow: BatchWorkflow) -> None:
        """Check the tasks of a batch, and all that can be reached from them."""
        self._ground = workflow.ground
        self._tasks(workflow.root_frame, around, workflow)

    def _volumes(self, file: tree.BatchFile, project: tree.ProjectFile | None) -> Shape:
        found: dict[str, Shape] = {}
        for name, volume in by_id(file, project, "volumes").items():
            found[name] = record(VolumeRecord)
            if volume.local is None:
                continue
            message = no_upload(name)
            if name in file.volumes:
                hint = (
                    f"Leave `local` out here. Where live.yml or project.yml declares '{name}' with"
                    f" it, `neuro-flow upload {name}` sends the folder before the bake."
                )
                self._report.add(message, volume.key_at["local"], hint)
                continue
            found[name] = Refused(message, upload_before(name))
        return found

    def file(self, action: Action, name: str, ground: Ground) -> None:
        """Check the file of an action that perhaps nobody calls: as a module it sees the most."""
        self._ground = ground
        self._file(action, ANYBODY, f"ws:{name}")

    def _file(self, action: Action, caller: Around | None, reference: str) -> None:
        """Check an action's file. A caller is given for a module, which sees its names."""
        path = action.path.resolve()
        mark = (path, caller)
        if mark in self._checked:
            return
        self._checked.add(mark)
        self._way.append((path, reference))
        try:
            self._action(action.file, caller)
        finally:
            self._way.pop()

    def _action(self, file: tree.ActionFile, caller: Around | None) -> None:
        names: dict[str, Shape] = {
            "inputs": dict.fromkeys(file.inputs),
            "flow": {**(record(ActionFlowRecord) or {}), "life_span": None},
            "git": record(GitRecord),
            "strategy": STRATEGY,
            "images": dict.fromkeys(file.images, record(ImageRecord)),
        }
        outer: Names = caller.names if caller is not None else {}
        inputs: Names = {"inputs": names["inputs"]}
        if file.job is not None:
            own = {"inputs": names["inputs"], "flow": names["flow"]}
            for _, value in values_of(file.job, batch=False):
                self._value(value, {**outer, **own}, batch=False)
            if caller is None and file.job.mixins is not None:
                report_no_mixins(file.job.mixins.at, self._report)
        if file.main is not None:
            for _, value in values_of(file.main, batch=True):
                self._value(value, inputs)
            if caller is ANYBODY:
                self._post(file, {**outer, "inputs": None})
        if file.cmd is not None:
            self._value(file.cmd, inputs)
        if file.kind == "batch":
            self._batch_action(file, names, caller)

    def _batch_action(self, file: tree.ActionFile, names: Names, caller: Around | None) -> None:
        outer: Names = caller.names if caller is not None else {}
        stages = {
            stage: (*some, *outer) if stage not in (Stage.CONSTANT, Stage.GRAPH) else some
            for stage, some in ACTION_STAGES.items()
        }
        mixins = caller.mixins if caller is not None else None
        # A module's own images are beside its caller's.
        images = outer.get("images", {})
        merged = None if images is None else {**images, **(names["images"] or {})}
        around = Around({**outer, **names, "images": merged}, stages, mixins)
        every: Names = {**around.names, **any_task()}
        for image in file.images.values():
            for _, value in values_of(image, batch=True):
                self._value(value, around.at(Stage.SECTIONS, every))
        if file.cache is not None:
            for _, value in values_of(file.cache, batch=True):
                self._value(value, around.at(Stage.FILE, every))
        needs = self._tasks(self._unknown_frame(file, around), around)
        last: Names = {**around.names, "needs": needs.whole()}
        for output in file.outputs.values():
            if output.value is not None:
                self._value(output.value, around.at(Stage.OUTPUTS, last))

    def _unknown_frame(self, file: tree.ActionFile, around: Around) -> Frame:
        """Where an action's tasks stand if nothing is known of who calls it."""
        from neuro.flow.evaluate.batch.unknown import unknown_frame

        return unknown_frame(
            file.tasks, around.names, around.mixins, tuple(name for _, name in self._way)
        )

    def _post(self, file: tree.ActionFile, names: Names) -> None:
        """The second part of a stateful action sees what the one sees that calls it."""
        if file.post is not None:
            for _, value in values_of(file.post, batch=True):
                self._value(value, names)
        if file.post_if is not None:
            self._value(file.post_if, names)

    # Tasks

    def _tasks(
        self, frame: Frame, around: Around, workflow: BatchWorkflow | None = None
    ) -> SeenNeeds:
        # Imported here: with what evaluates batches, for those who have some.
        from neuro.flow.evaluate.batch.graph import build
        from neuro.flow.evaluate.check_graph import SeenNeeds

        assert self._ground is not None  # only batches have tasks
        told = Report()
        is_broken = bool(self._report.problems)
        if workflow is not None and not is_broken:
            built = workflow.built(frame, told)  # kept there for the plan
        else:
            built = build(frame, replace(self._ground, is_broken=is_broken), told)
        # One for all calls of modules here: they all see the same names.
        inner = Around({**around.names, **any_task()}, {}, around.mixins)
        needs = SeenNeeds(built)
        for element in built.elements:
            called = None
            if isinstance(element.task, tree.TaskCall):
                called = self.called(element.task, BATCH, inner)
            self._element(element, needs.of(element), around)
            if called is not None:
                self._post_of(element, called, needs.of_post(element), around)
        # Of the problems at one place, names come first: their hint has the nearest ones.
        self._report.take(told.problems)
        return needs

    def _post_of(self, element: Element, found: Action, needs: Shape, around: Around) -> None:
        """Check the post part of a call: it sees the call's names, and other needs."""
        own: Names = {
            **around.names,
            **any_task(),
            "matrix": matrix_members(element.task.strategy),
            "needs": needs,
        }
        self._post(found.file, around.at(Stage.TASK, own))

    def _element(self, element: Element, needs: Shape, around: Around) -> None:
        unit = element.task
        own: Names = {
            **around.names,
            "strategy": STRATEGY,
            "matrix": matrix_members(unit.strategy),
            "needs": needs,
            "state": {},
        }
        selected: dict[Stage | None, Names] = {}
        if "needs" in around.names:
            # The rows of a module's task may depend on what its caller has waited for.
            selected[Stage.MATRIX] = {**around.at(Stage.MATRIX, own), "needs": None}
        for stage, value in values_of(unit, batch=True):
            if value.template is not None:
                if stage not in selected:
                    selected[stage] = around.at(stage, own)
                check_template(value.template, selected[stage], self._report, batch=True)
        if not isinstance(unit, tree.Task) or unit.image is not None:
            return
        if "image" in unit.specified and not self._readable:
            # It may be one that could not be read, which is reported already.
            return
        # Mixins that are not known here may bring it.
        if unit.mixins is None or (around.mixins is not None and around.mixins.is_known):
            report_no_image(Owner("task", element.name, unit.at), self._report)

    # Calls

    def called(
        self, call: tree.Call | tree.TaskCall, kinds: tuple[str, ...], caller: Around
    ) -> Action | None:
        """Check the call of an action, and the action, where it can be read from here."""
        action = find_called(
            call,
            kinds,
            lambda reference, at: self._actions.get(reference, at, self._report, broken=True),
            self._report,
        )
        if action is None:
            return None
        parts = call.args.parts if call.args is not None else ()
        check_names(
            {key: part.at for key, part in parts if key is not None},
            action.file.inputs,
            call.at,
            self._report,
            complete=all(key is not None for key, _ in parts),
        )
        check_literals(call.args, action.file.inputs, self._report)
        way = [path for path, _ in self._way]
        path = action.path.resolve()
        if path in way:
            circle = [name for _, name in self._way[way.index(path) :]]
            report_circle(circle, call, self._report)
        else:
            module = caller if call.module is not None else None
            self._file(action, module, reference_of(call))
        return action

    def _value(self, value: Value, names: Names, *, batch: bool = True) -> None:
        if value.template is not None:
            check_template(value.template, names, self._report, batch=batch)


def no_upload(volume: str) -> str:
    """Why a volume with a local folder is refused: a bake does not need this machine."""
    return f"A batch uploads nothing, and volume '{volume}' has a `local` folder"


def upload_before(volume: str) -> str:
    """What to do about a volume with a local folder that the project declares."""
    return (
        f"Declare '{volume}' in this file too, without `local`, and upload it before the bake"
        f" with `neuro-flow upload {volume}`."
    )
