"""Finds the problems of batches: of their graphs, and of all that their tasks read and call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from neuro.domain.errors import InvalidInput
from neuro.domain.flows import check_batch_name
from neuro.flow.evaluate.actions import Action, Actions, check_literals, check_names
from neuro.flow.evaluate.check_graph import (
    Called,
    Content,
    TaskGraph,
    check_ids,
    check_order,
    every_need,
    post_needs,
    seen_needs,
)
from neuro.flow.evaluate.check_names import (
    ACTION_PLACES,
    ANYBODY,
    BATCH_PLACES,
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
from neuro.flow.evaluate.graph import Element, is_late, outline
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.evaluate.static import Names, Refused, Shape, check_template, record, values_of
from neuro.flow.evaluate.units import Owner, report_no_image
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.types import Value

_KINDS = ("batch", "stateful", "local")


class TaskCheck:
    """Checks batches and actions of one workspace, each file once for each way it is called."""

    def __init__(self, actions: Actions, report: Report) -> None:
        self._actions = actions
        self._report = report
        self._readable = True
        self._checked: set[tuple[Path, Around | None]] = set()
        self._contents: dict[Path, Content] = {}
        # The actions that are being checked, each in the one before it, with their references.
        self._way: list[tuple[Path, str]] = []

    # Files

    def batch(self, name: str, file: tree.BatchFile, project: tree.ProjectFile | None) -> None:
        """Check a batch and all that can be reached from it."""
        self._readable = not self._report.problems
        try:
            check_batch_name(name)
        except InvalidInput as error:
            self._report.add(str(error), file.at)
        names = common_names(file, project, FlowRecord)
        names["flow"] = {**(names["flow"] or {}), "life_span": None}
        names["params"] = dict.fromkeys(file.params)
        names["volumes"] = self._volumes(file, project)
        mixins = Mixins({**(project.mixins if project is not None else {}), **file.mixins})
        around = Around(names, BATCH_PLACES, mixins)
        for place, value in file_values(file, project):
            self._value(value, around.at(place, names))
        for part in (file, project):
            if part is not None and part.defaults is not None:
                self._parallel(part.defaults.max_parallel)
        mixins.check(file.mixins, self._report)
        every: Names = {**names, **any_task()}
        for mixin in file.mixins.values():
            for place, value in values_of(mixin, batch=True):
                self._value(value, around.at(place, every))
        self._tasks(file.tasks, around, Content())

    def _volumes(self, file: tree.BatchFile, project: tree.ProjectFile | None) -> Shape:
        found: dict[str, Shape] = {}
        for name, volume in by_id(file, project, "volumes").items():
            found[name] = record(VolumeRecord)
            if volume.local is None:
                continue
            message = f"A batch uploads nothing, and volume '{name}' has a `local` folder"
            if name in file.volumes:
                hint = (
                    f"Leave `local` out here. Where live.yml or project.yml declares '{name}' with"
                    f" it, `neuro-flow upload {name}` sends the folder before the bake."
                )
                self._report.add(message, volume.key_at["local"], hint)
                continue
            hint = (
                f"Declare '{name}' in this file too, without `local`, and upload it before the "
                f"bake with `neuro-flow upload {name}`."
            )
            found[name] = Refused(message, hint)
        return found

    def file(self, action: Action, name: str) -> None:
        """Check the file of an action that perhaps nobody calls: as a module it sees the most."""
        self._readable = not self._report.problems
        self._file(action, ANYBODY, f"ws:{name}")

    def _file(self, action: Action, caller: Around | None, reference: str) -> Content:
        """Check an action's file. A caller is given for a module, which sees its names."""
        path = action.path.resolve()
        mark = (path, caller)
        if mark in self._checked:
            return self._contents[path]
        self._checked.add(mark)
        content = self._contents[path] = Content()
        self._way.append((path, reference))
        try:
            self._action(action.file, caller, content)
        finally:
            self._way.pop()
        return content

    def _action(self, file: tree.ActionFile, caller: Around | None, content: Content) -> None:
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
                self._report.add("Mixins are not available in an action", file.job.mixins.at)
        if file.main is not None:
            content.remote = ()
            for _, value in values_of(file.main, batch=True):
                self._value(value, inputs)
            if caller is ANYBODY:
                self._post(file, {**outer, "inputs": None})
        if file.cmd is not None:
            content.local = ()
            self._value(file.cmd, inputs)
        if file.kind == "batch":
            self._batch_action(file, names, caller, content)

    def _batch_action(
        self,
        file: tree.ActionFile,
        names: Names,
        caller: Around | None,
        content: Content,
    ) -> None:
        outer: Names = caller.names if caller is not None else {}
        places = {
            place: (*some, *outer) if place not in ("B0", "BM") else some
            for place, some in ACTION_PLACES.items()
        }
        mixins = caller.mixins if caller is not None else Mixins({})
        # A module's own images are beside its caller's.
        images = outer.get("images", {})
        merged = None if images is None else {**images, **(names["images"] or {})}
        around = Around(
            {**outer, **names, "images": merged}, places, mixins, has_mixins=caller is not None
        )
        every: Names = {**around.names, **any_task()}
        for image in file.images.values():
            for _, value in values_of(image, batch=True):
                self._value(value, around.at("B1", every))
        if file.cache is not None:
            for _, value in values_of(file.cache, batch=True):
                self._value(value, around.at("B2", every))
        graph = self._tasks(file.tasks, around, content)
        inner = every_need(graph)
        for output in file.outputs.values():
            if output.value is not None:
                self._value(output.value, around.at("AO", {**around.names, "needs": inner}))

    def _post(self, file: tree.ActionFile, names: Names) -> None:
        """The second part of a stateful action sees what the one sees that calls it."""
        if file.post is not None:
            for _, value in values_of(file.post, batch=True):
                self._value(value, names)
        if file.post_if is not None:
            self._value(file.post_if, names)

    # Tasks

    def _tasks(
        self, tasks: Sequence[tree.Task | tree.TaskCall], around: Around, content: Content
    ) -> TaskGraph:
        whole = [self._with_mixins(task, around) for task in tasks]
        found = outline(whole, self._report)
        # One for all calls of modules here: they all see the same names.
        inner = Around({**around.names, **any_task()}, {}, around.mixins)
        called = [
            self._call(unit, around, inner, content) if isinstance(unit, tree.TaskCall) else None
            for unit in whole
        ]
        hints = {name: f"Add {name} to the `needs:` of this task." for name in found.nodes}
        graph = TaskGraph(found, called, hints)
        for task, element in zip(tasks, found.elements, strict=True):
            self._element(task, element, graph, around)
        for index, needs in post_needs(graph).items():
            self._post_of(whole[index], called[index], needs, around)
        check_ids(graph, self._report)
        check_order(graph, content, self._report)
        return graph

    def _with_mixins(
        self, task: tree.Task | tree.TaskCall, around: Around
    ) -> tree.Task | tree.TaskCall:
        if not isinstance(task, tree.Task) or task.mixins is None or around.mixins is None:
            return task
        if not around.has_mixins:
            self._report.add("Mixins are not available in an action", task.mixins.at)
            return task
        return around.mixins.apply(task, task.mixins, self._report)

    def _post_of(
        self,
        call: tree.Task | tree.TaskCall,
        found: Called | None,
        needs: Shape,
        around: Around,
    ) -> None:
        """What runs in the end for a call sees what the call sees, and other needs."""
        assert found is not None  # it was read
        own: Names = {
            **around.names,
            **any_task(),
            "matrix": matrix_members(call.strategy),
            "needs": needs,
        }
        self._post(found.action.file, around.at("B5", own))

    def _element(
        self,
        task: tree.Task | tree.TaskCall,
        element: Element,
        graph: TaskGraph,
        around: Around,
    ) -> None:
        unit = element.task
        own: Names = {
            **around.names,
            "strategy": STRATEGY,
            "matrix": matrix_members(unit.strategy),
            "needs": seen_needs(graph, element),
            "state": {},
        }
        if unit.strategy is not None:
            self._parallel(unit.strategy.max_parallel)
        selected: dict[str, Names] = {}
        if "needs" in around.names:
            # The rows of a module's task may depend on what its caller has waited for.
            selected["B3"] = {**around.at("B3", own), "needs": None}
        for place, value in values_of(unit, batch=True):
            if value.template is not None:
                if place not in selected:
                    selected[place] = around.at(place, own)
                check_template(value.template, selected[place], self._report, batch=True)
        if not isinstance(unit, tree.Task) or unit.image is not None:
            return
        if "image" in unit.specified and not self._readable:
            # It may be one that could not be read: that is told already.
            return
        # Mixins that are not known here may bring it.
        if unit.mixins is None or (around.mixins is not None and around.has_mixins):
            report_no_image(Owner("task", element.name, task.at), self._report)

    # Calls

    def _call(
        self, call: tree.TaskCall, around: Around, inner: Around, content: Content
    ) -> Called | None:
        found = self.called(call, _KINDS, "batch", inner)
        if found is None:
            return None
        kind = found.action.file.kind
        if kind != "batch" and call.cache is not None:
            self._report.add(
                f"Specifying cache in action call to the action {_reference(call)} of kind {kind} "
                "is not supported",
                call.key_at["cache"],
                "Only tasks and the tasks of batch actions are cached: leave it out.",
            )
        if kind == "local" and is_late(call):
            self._report.add("The matrix of a local action cannot be decided by outputs", call.at)
        return found

    def called(
        self, call: tree.Call | tree.TaskCall, kinds: tuple[str, ...], mode: str, caller: Around
    ) -> Called | None:
        """Check the call of an action, and the action, where it can be read from here."""
        value = call.module if call.module is not None else call.action
        if value is None:
            return None
        reference = str(value.constant)
        if call.module is not None and not reference.startswith(("ws:", "workspace:")):
            self._report.add(
                f"Module {reference} should be a file of the workspace: write ws:PATH", value.at
            )
            return None
        action = self._actions.get(reference, value.at, self._report, broken=True)
        if action is None:
            return None
        kind = action.file.kind
        if kind not in kinds:
            self._report.add(
                f"Action {reference} has kind {kind}, that is not supported in {mode} mode",
                value.at,
                f"Here are called actions of kind {', '.join(kinds)}.",
            )
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
            self._report.add(
                f"Actions call each other in a circle: {' -> '.join([*circle, reference])}",
                value.at,
                "Such a bake would never end.",
            )
            return Called(action, Content())
        module = caller if call.module is not None else None
        return Called(action, self._file(action, module, reference))

    def _parallel(self, value: Value | None) -> None:
        if value is not None and value.template is None and cast(int, value.constant) < 1:
            self._report.add("max_parallel should be at least 1", value.at)

    def _value(self, value: Value, names: Names, *, batch: bool = True) -> None:
        if value.template is not None:
            check_template(value.template, names, self._report, batch=batch)


def _reference(call: tree.TaskCall) -> str:
    value = call.module if call.module is not None else call.action
    return str(value.constant) if value is not None else ""
