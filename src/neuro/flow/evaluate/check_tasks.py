"""Finds the problems of batches: of their graphs, and of all that their tasks read and call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, cast

from neuro.flow.evaluate.actions import Action, Actions, check_names, literal_problem
from neuro.flow.evaluate.contexts import (
    ActionFlowRecord,
    FlowRecord,
    GitRecord,
    ImageRecord,
    ProjectRecord,
    VolumeRecord,
)
from neuro.flow.evaluate.graph import Element, Outline, is_late, matrix_keys, outline
from neuro.flow.evaluate.mixins import Mixins, overlay
from neuro.flow.evaluate.static import (
    Members,
    Names,
    Refused,
    Shape,
    check_template,
    record,
    values_of,
)
from neuro.flow.evaluate.units import Owner, report_no_image
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from neuro.flow.evaluate.graph import Need
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.source import Position
    from neuro.flow.syntax.types import MapValue, Value

Places = Mapping[str, tuple[str, ...]]

# What each place of a batch adds to the names of the one before it.
PROJECT = ("project", "flow", "params", "git")
DEFAULTS = ("env", "tags", "volumes", "images")
_MATRIX = ("strategy", "matrix")
_BATCH_PLACES: Places = {
    "B0": (),
    "BM": ("matrix",),
    "B1": PROJECT,
    "B2": (*PROJECT, *DEFAULTS),
    "B3": (*PROJECT, *DEFAULTS, "strategy", "needs"),
    "B4": (*PROJECT, *DEFAULTS, *_MATRIX),
    "B5": (*PROJECT, *DEFAULTS, *_MATRIX, "needs", "state"),
}
_ACTION = ("inputs", "strategy", "git", "flow")
_ACTION_PLACES: Places = {
    "B0": (),
    "BM": ("matrix",),
    "B1": _ACTION,
    "B2": (*_ACTION, "images"),
    "B3": (*_ACTION, "images", "needs"),
    "B4": (*_ACTION, "images", "matrix"),
    "B5": (*_ACTION, "images", "matrix", "needs", "state"),
    "AO": (*_ACTION, "images", "needs"),
}
_STRATEGY: Shape = {"fail_fast": None, "max_parallel": None}
_KINDS = ("batch", "stateful", "local")


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """What a list of tasks stands in: the names that all of it reads, and its mixins."""

    names: Names
    places: Places
    # None where nobody says which there are.
    mixins: Mixins | None
    has_mixins: bool = True

    def at(self, place: str, own: Names) -> Names:
        """The names of a place, a task's own ones included."""
        return {name: own.get(name) for name in self.places.get(place, ())}


@dataclass(slots=True)
class Content:
    """What is in an action's file, as those see it that call it: ids of its tasks."""

    remote: tuple[str, ...] | None = None
    local: tuple[str, ...] | None = None
    images: list[tree.Image] = field(default_factory=list)
    called: list[Content] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Called:
    """An action as an element of `tasks` calls it."""

    action: Action
    content: Content


@dataclass(frozen=True, slots=True)
class _Graph:
    outline: Outline
    # What each element calls; None for tasks, and for what could not be read.
    called: Sequence[_Called | None]
    hints: Mapping[str, str]


# Who calls a module that is checked for itself: nobody knows what there is.
ANYBODY: Final = Around(
    dict.fromkeys((*PROJECT, *DEFAULTS, "multi", *_MATRIX, "needs", "state")), {}, None
)


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

    def batch(self, file: tree.BatchFile, project: tree.ProjectFile | None) -> None:
        """Check a batch and all that can be reached from it."""
        self._readable = not self._report.problems
        names = common_names(file, project, FlowRecord)
        names["flow"] = {**(names["flow"] or {}), "life_span": None}
        names["params"] = dict.fromkeys(file.params)
        names["volumes"] = self._volumes(file, project)
        mixins = Mixins({**(project.mixins if project is not None else {}), **file.mixins})
        around = Around(names, _BATCH_PLACES, mixins)
        for place, value in _file_values(file, project):
            self._value(value, around.at(place, names))
        for part in (file, project):
            if part is not None and part.defaults is not None:
                self._parallel(part.defaults.max_parallel)
        mixins.check(file.mixins, self._report)
        every: Names = {**names, **_every()}
        for mixin in file.mixins.values():
            for place, value in values_of(mixin, batch=True):
                self._value(value, around.at(place, every))
        content = Content(images=list(_by_id(file, project, "images").values()))
        self._tasks(file.tasks, around, content)
        self._check_images(content)

    def _volumes(self, file: tree.BatchFile, project: tree.ProjectFile | None) -> Shape:
        found: dict[str, Shape] = {}
        for name, volume in _by_id(file, project, "volumes").items():
            found[name] = record(VolumeRecord)
            if volume.local is None:
                continue
            message = f"A batch uploads nothing, and volume '{name}' has a `local` folder"
            if name in file.volumes:
                hint = "Leave `local` out here, and upload before the bake."
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
            "strategy": _STRATEGY,
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
            for place, some in _ACTION_PLACES.items()
        }
        mixins = caller.mixins if caller is not None else Mixins({})
        # A module's own images are beside its caller's.
        images = outer.get("images", {})
        merged = None if images is None else {**images, **(names["images"] or {})}
        around = Around(
            {**outer, **names, "images": merged}, places, mixins, has_mixins=caller is not None
        )
        content.images.extend(file.images.values())
        every: Names = {**around.names, **_every()}
        for image in file.images.values():
            for _, value in values_of(image, batch=True):
                self._value(value, around.at("B1", every))
        if file.cache is not None:
            for _, value in values_of(file.cache, batch=True):
                self._value(value, around.at("B2", every))
        graph = self._tasks(file.tasks, around, content)
        inner = None if graph.outline.open else _needs(graph, graph.outline.nodes)
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
    ) -> _Graph:
        whole = [self._with_mixins(task, around) for task in tasks]
        found = outline(whole, self._report)
        # One for all calls of modules here: they all see the same names.
        inner = Around({**around.names, **_every()}, {}, around.mixins)
        called = [
            self._call(unit, around, inner, content) if isinstance(unit, tree.TaskCall) else None
            for unit in whole
        ]
        hints = {name: f"Add {name} to the `needs:` of this task." for name in found.nodes}
        graph = _Graph(found, called, hints)
        for task, element in zip(tasks, found.elements, strict=True):
            self._element(task, element, graph, around)
        self._order(graph, content)
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

    def _element(
        self,
        task: tree.Task | tree.TaskCall,
        element: Element,
        graph: _Graph,
        around: Around,
    ) -> None:
        unit = element.task
        own: Names = {
            **around.names,
            "strategy": _STRATEGY,
            "matrix": _matrix(unit.strategy),
            "needs": _needs_of(graph, element),
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

    def _order(self, graph: _Graph, content: Content) -> None:
        """Local actions run before all else: they cannot wait for a task on the platform."""
        found = graph.outline
        # For each node: the first remote task before it, and where it says so.
        before: dict[int, tuple[str, Position | None]] = {}
        told: set[int] = set()
        for node in found.order:
            index = found.owners[node]
            for edge in found.edges[node]:
                remote = _remote(graph, edge.target)
                if remote is not None:
                    before[node] = (".".join((found.name(edge.target), *remote)), edge.at)
                elif edge.target in before:
                    before[node] = (before[edge.target][0], edge.at or before[edge.target][1])
                if node in before:
                    break
            call = graph.called[index]
            if call is None or call.content.local is None:
                continue
            name = ".".join((found.name(node), *call.content.local))
            if node in before and index not in told:
                told.add(index)
                self._report.add(
                    f"Local action '{name}' depends on remote task '{before[node][0]}'",
                    before[node][1] or found.elements[index].task.at,
                    "Local actions all run before the tasks on the platform: let it need none of "
                    "those, `needs: []` for example.",
                )
        for index, element in enumerate(found.elements):
            call = graph.called[index]
            remote = _remote(graph, element.node)
            if content.remote is None and remote is not None:
                content.remote = (element.name, *remote)
            if content.local is None and call is not None and call.content.local is not None:
                content.local = (element.name, *call.content.local)

    # Calls

    def _call(
        self, call: tree.TaskCall, around: Around, inner: Around, content: Content
    ) -> _Called | None:
        found = self.called(call, _KINDS, "batch", inner)
        if found is None:
            return None
        content.called.append(found.content)
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
        if kind == "stateful":
            own: Names = {**around.names, **_every(), "matrix": _matrix(call.strategy)}
            self._post(found.action.file, around.at("B5", own))
        return found

    def called(
        self, call: tree.Call | tree.TaskCall, kinds: tuple[str, ...], mode: str, caller: Around
    ) -> _Called | None:
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
        for key, part in parts:
            if key is not None and key in action.file.inputs and part.template is None:
                literal_problem(key, part, action.file.inputs[key], self._report)
        way = [path for path, _ in self._way]
        path = action.path.resolve()
        if path in way:
            circle = [name for _, name in self._way[way.index(path) :]]
            self._report.add(
                f"Actions call each other in a circle: {' -> '.join([*circle, reference])}",
                value.at,
                "Such a bake would never end.",
            )
            return _Called(action, Content())
        module = caller if call.module is not None else None
        return _Called(action, self._file(action, module, reference))

    # Images

    def _check_images(self, content: Content) -> None:
        """An image is built once: what it is built from can only be one thing."""
        first: dict[str, tree.Image] = {}
        for image in _images(content, set()):
            ref = str(image.ref.constant) if image.ref is not None else ""
            if image.context is None or not ref.startswith("image:"):
                continue
            other = first.setdefault(ref, image)
            same = _same(image.context, other.context) and _same(image.dockerfile, other.dockerfile)
            if not same and image.ref is not None and other.ref is not None:
                at = other.ref.at
                self._report.add(
                    f"Image {ref} is defined twice, with different contexts or dockerfiles",
                    image.ref.at,
                    f"The other definition is at line {at.line} of {at.source.name}.",
                )

    def _parallel(self, value: Value | None) -> None:
        if value is not None and value.template is None and cast(int, value.constant) < 1:
            self._report.add("max_parallel should be at least 1", value.at)

    def _value(self, value: Value, names: Names, *, batch: bool = True) -> None:
        if value.template is not None:
            check_template(value.template, names, self._report, batch=batch)


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
        "volumes": dict.fromkeys(_by_id(file, project, "volumes"), record(VolumeRecord)),
        "images": dict.fromkeys(_by_id(file, project, "images"), record(ImageRecord)),
    }


def _by_id(
    file: tree.LiveFile | tree.BatchFile, project: tree.ProjectFile | None, section: str
) -> dict[str, Any]:
    """A section of the file, with what the project's file has besides."""
    inherited = getattr(project, section) if project is not None else {}
    return {**inherited, **getattr(file, section)}


def _file_values(
    file: tree.BatchFile, project: tree.ProjectFile | None
) -> Iterator[tuple[str, Value]]:
    """The values outside of tasks and mixins."""
    sections: list[tree.Node | None] = [
        *_by_id(file, project, "images").values(),
        *_by_id(file, project, "volumes").values(),
        *file.params.values(),
        file.defaults,
        file.concurrency,
        project.defaults if project is not None else None,
    ]
    for section in sections:
        if section is not None:
            yield from values_of(section, batch=True)
    if file.life_span is not None:
        yield "B0", file.life_span


def _every() -> dict[str, Shape]:
    """A task's own names, where nobody knows which task."""
    return {"strategy": _STRATEGY, "matrix": None, "needs": None, "state": None}


def _reference(call: tree.TaskCall) -> str:
    value = call.module if call.module is not None else call.action
    return str(value.constant) if value is not None else ""


def _keys(values: MapValue | None) -> Shape:
    if values is None:
        return {}
    found = [key for key, _ in values.parts]
    return None if None in found else {key: None for key in found if key is not None}


def _matrix(strategy: tree.Strategy | None) -> Shape:
    if strategy is None or strategy.matrix is None:
        # One that could not be read has keys that nobody knows.
        return None if strategy is not None and "matrix" in strategy.specified else {}
    empty = {name for name, values in strategy.matrix.products.items() if not values.parts}
    known = {**dict.fromkeys(matrix_keys(strategy.matrix)), "ORDINAL": None}
    return Members(known, dict.fromkeys(empty, "Its list is empty: that is as good as no key."))


def _needs_of(graph: _Graph, element: Element) -> Shape:
    """What a task reads in `needs`; None where that is not known."""
    found = graph.outline
    if element.task.needs is None:
        if element.number == 1:
            return Members({}, graph.hints)
        before = found.elements[element.number - 2]
        if before.ids is None and before.group is None:
            return None
        names = [*(before.ids or ()), *([before.group] if before.group is not None else [])]
        return Members(_needs(graph, names), graph.hints)
    names, running = [], {}
    for needs in _distinct(element.needs):
        if needs is None:
            return None
        for need in needs:
            if need.level == "completed":
                names.append(need.id)
            else:
                running[need.id] = "It is needed as `running` only: write `completed`."
    hints = {**graph.hints, **running} if running else graph.hints
    return Members(_needs(graph, names), hints)


def _distinct(needs: Sequence[Sequence[Need] | None]) -> Iterator[Sequence[Need] | None]:
    """The needs of the rows; those of equal rows are the same list."""
    before: object = ()
    for one in needs:
        if one is not before:
            yield one
        before = one


def _needs(graph: _Graph, names: Iterable[str]) -> dict[str, Shape]:
    """What is known of how the tasks with these ids end."""
    return {name: _need(graph, name) for name in names}


def _need(graph: _Graph, name: str) -> Shape:
    found = graph.outline
    node = found.nodes.get(name)
    if node is None:
        return None
    call = graph.called[found.owners[node]]
    outputs: Shape = None
    if call is not None and call.action.file.kind == "batch":
        outputs = dict.fromkeys(call.action.file.outputs)
    if found.owner(node).group == name:
        return {"result": None, "outputs": outputs, "rows": None}
    return {"result": None, "outputs": outputs}


def _remote(graph: _Graph, node: int) -> tuple[str, ...] | None:
    """The way from a node to a task on the platform: none for local actions."""
    if isinstance(graph.outline.owner(node).task, tree.Task):
        return ()
    call = graph.called[graph.outline.owners[node]]
    return call.content.remote if call is not None else None


def _images(content: Content, seen: set[int]) -> Iterator[tree.Image]:
    if id(content) in seen:
        return
    seen.add(id(content))
    yield from content.images
    for inner in content.called:
        yield from _images(inner, seen)


def _same(one: Value | None, other: Value | None) -> bool:
    """Whether two places can be one: of expressions nobody knows."""
    if one is None or other is None:
        return one is other
    if one.template is not None or other.template is not None:
        return True
    return PurePosixPath(str(one.constant)) == PurePosixPath(str(other.constant))
