"""Finds the problems of a workspace's flow files, without running what they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.flow.evaluate import graph
from neuro.flow.evaluate.actions import Action, Actions, check_names, literal_problem
from neuro.flow.evaluate.contexts import (
    ActionFlowRecord,
    FlowRecord,
    GitRecord,
    ImageRecord,
    MultiRecord,
    ProjectRecord,
    VolumeRecord,
)
from neuro.flow.evaluate.jobs import LiveWorkflow
from neuro.flow.evaluate.mixins import Mixins, overlay
from neuro.flow.evaluate.sections import constant_flag
from neuro.flow.evaluate.static import Names, Shape, check_template, record, values_of
from neuro.flow.evaluate.values import Unknowable, Values
from neuro.flow.expressions.evaluator import Scope
from neuro.flow.syntax import tree
from neuro.flow.syntax.problems import Report
from neuro.flow.syntax.reader import load_source, read_any, read_live

if TYPE_CHECKING:
    from neuro.domain.jobs import Job
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.project import Project, Workspace
    from neuro.flow.syntax.problems import Problem
    from neuro.flow.syntax.source import Position
    from neuro.flow.syntax.types import MapValue, Value

# What each place of a batch adds to the names of the one before it.
_PROJECT = ("project", "flow", "params", "git")
_DEFAULTS = ("env", "tags", "volumes", "images")
_BATCH_PLACES: Mapping[str, tuple[str, ...]] = {
    "B0": (),
    "BM": ("matrix",),
    "B1": _PROJECT,
    "B2": (*_PROJECT, *_DEFAULTS),
    "B3": (*_PROJECT, *_DEFAULTS, "strategy"),
    "B4": (*_PROJECT, *_DEFAULTS, "strategy", "matrix"),
    "B5": (*_PROJECT, *_DEFAULTS, "strategy", "matrix", "needs", "state"),
}
_ACTION = ("inputs", "strategy", "git", "flow")
_ACTION_PLACES: Mapping[str, tuple[str, ...]] = {
    "B0": (),
    "BM": ("matrix",),
    "B1": _ACTION,
    "B2": (*_ACTION, "images"),
    "B3": (*_ACTION, "images"),
    "B4": (*_ACTION, "images", "matrix"),
    "B5": (*_ACTION, "images", "matrix", "needs", "state"),
    "AO": (*_ACTION, "images", "needs"),
}
_NEED: Shape = {"result": None, "outputs": None}
_STRATEGY: Shape = {"fail_fast": None, "max_parallel": None}


def check_workspace(workspace: Workspace, environment: Environment) -> list[Problem]:
    """Find every problem, in the order of files and places."""
    return _Check(workspace, environment).run()


class _Nothing:
    """Effects while checking: an upload is taken as done, a job is not known."""

    def upload(self, volume: VolumeRecord) -> None:
        """Nothing is sent."""

    def inspect_job(self, tags: tuple[str, ...]) -> Job | None:
        raise Unknowable


class _Params(dict[str, str]):
    """Parameters; one that must be given is not known yet."""

    def __init__(self, known: Mapping[str, str], declared: Mapping[str, object]) -> None:
        super().__init__(known)
        self._declared = declared

    def __missing__(self, name: str) -> str:
        if name in self._declared:
            raise Unknowable
        raise KeyError(name)


class _Check:
    def __init__(self, workspace: Workspace, environment: Environment) -> None:
        self._workspace = workspace
        self._environment = environment
        self._report = Report()
        self._actions = Actions(workspace.root, environment.cache_dir, network=False)
        self._checked: set[tuple[Path, bool]] = set()
        self._project: Project

    def run(self) -> list[Problem]:
        from neuro.flow.project import flow_file, read_project_of

        self._project = read_project_of(self._workspace, self._report)
        config_dir = self._workspace.config_dir
        live, project = flow_file(config_dir, "live"), flow_file(config_dir, "project")
        if live is not None:
            self._live_path(live)
        for path in sorted(_flow_files(config_dir)):
            if path not in (live, project):
                self._any_path(path)
        return _first_of_each_place(self._report)

    def _live_path(self, path: Path) -> None:
        source = load_source(path, self._report)
        file = read_live(source, self._report) if source is not None else None
        if file is not None:
            self._live(file)

    def _any_path(self, path: Path) -> None:
        source = load_source(path, self._report)
        file = read_any(source, self._report) if source is not None else None
        if isinstance(file, tree.BatchFile):
            self._batch(file)
        elif isinstance(file, tree.ActionFile):
            # Nobody says how it is called: as a module it sees the most.
            self._action_file(Action(file, path), module=True)

    # Live

    def _live(self, file: tree.LiveFile) -> None:
        readable = not self._report.problems
        project = self._project.file
        names = self._live_names(file)
        for place, value in _file_values(file, batch=False):
            self._value(value, _live_place(names, place))
        mixins = Mixins({**(project.mixins if project else {}), **file.mixins})
        mixins.check(self._report)
        for mixin in file.mixins.values():
            self._unit_values(mixin, names, None)
        for job_id, job in file.jobs.items():
            if isinstance(job, tree.Call):
                self._live_call(job, names)
                continue
            before = len(self._report.problems)
            unit = mixins.apply(job, job.mixins, self._report)
            # A mixin that is not there, or an image that is wrong, is told already.
            complete = len(self._report.problems) == before
            self._unit_values(job, names, unit)
            if complete and unit.image is None and ("image" not in unit.specified or readable):
                self._report.add(
                    f"Image for job {job_id} is not specified",
                    job.at,
                    "Write `image:` into the job or one of its mixins.",
                )
        if not self._report.problems:
            self._evaluate(file)

    def _unit_values(self, unit: tree.LiveUnit, names: Names, whole: tree.LiveUnit | None) -> None:
        """Check a job's values; a mixin's without its jobs, whose parameters it may read."""
        third = dict(names)
        third["params"] = dict.fromkeys(whole.params) if whole is not None else None
        if whole is None or constant_flag(whole.multi):
            third["multi"] = record(MultiRecord)
        for place, value in values_of(unit, batch=False):
            self._value(value, _live_place(third, place))

    def _live_call(self, call: tree.Call, names: Names) -> None:
        third = {**names, "params": dict.fromkeys(call.params)}
        action = self._called(call, ("live",), "live")
        if action is None or (action.file.job is not None and constant_flag(action.file.job.multi)):
            third["multi"] = record(MultiRecord)
        for place, value in values_of(call, batch=False):
            self._value(value, _live_place(third, place))

    def _live_names(self, file: tree.LiveFile) -> Names:
        return {**self._common(file, FlowRecord), "params": {}}

    def _common(self, file: tree.LiveFile | tree.BatchFile, flow: type) -> dict[str, Shape]:
        project = self._project.file
        volumes = {**(project.volumes if project else {}), **file.volumes}
        images = {**(project.images if project else {}), **file.images}
        defaults: tree.LiveDefaults = file.defaults or tree.LiveDefaults(at=file.at)
        if project is not None and project.defaults is not None:
            defaults = overlay(defaults, project.defaults)
        return {
            "project": record(ProjectRecord),
            "flow": record(flow),
            "git": record(GitRecord),
            "env": _keys(defaults.env),
            "tags": None,
            "volumes": dict.fromkeys(volumes, record(VolumeRecord)),
            "images": dict.fromkeys(images, record(ImageRecord)),
        }

    def _evaluate(self, file: tree.LiveFile) -> None:
        """Evaluate what is known before a job runs: conversions show what types do not."""
        workflow = LiveWorkflow(
            root=self._workspace.root,
            project_id=self._project.id,
            live=file,
            project=self._project.file,
            environment=self._environment,
            report=self._report,
            checking=True,
        )
        for job_id, job in workflow.jobs.items():
            values = Values(Scope(workflow.second), self._report)
            params = {
                name: str(values.one(param.default))
                for name, param in job.params.items()
                if param.default is not None
            }
            multi = workflow.is_multi_job(job, self._report)
            workflow.evaluate(
                job_id,
                _Params(params, job.params),
                "suffix" if multi else None,
                (),
                _Nothing(),
                self._report,
            )

    # Batches

    def _batch(self, file: tree.BatchFile) -> None:
        names = self._common(file, FlowRecord)
        names["flow"] = {**(names["flow"] or {}), "life_span": None}
        names["params"] = dict.fromkeys(file.params)
        for place, value in _file_values(file, batch=True):
            self._value(value, _select(names, _BATCH_PLACES, place))
        project = self._project.file
        known: dict[str, tree.Mixin] = {**(project.mixins if project else {}), **file.mixins}
        mixins = Mixins(known)
        mixins.check(self._report)
        open_names = {**names, "strategy": _STRATEGY, "matrix": None, "needs": None, "state": None}
        for mixin in file.mixins.values():
            for place, value in values_of(mixin, batch=True):
                self._value(value, _select(open_names, _BATCH_PLACES, place), tasks=True)
        self._tasks(file.tasks, names, _BATCH_PLACES, mixins)

    def _tasks(
        self,
        tasks: tuple[tree.Task | tree.TaskCall, ...],
        names: Names,
        places: Mapping[str, tuple[str, ...]],
        mixins: Mixins | None,
    ) -> None:
        whole = [
            mixins.apply(task, task.mixins, self._report)
            if mixins is not None and isinstance(task, tree.Task)
            else task
            for task in tasks
        ]
        graph.check(whole, self._report)
        for number, (task, unit) in enumerate(zip(tasks, whole, strict=True), start=1):
            own = {
                **names,
                "strategy": _STRATEGY,
                "matrix": _matrix(unit.strategy),
                "needs": _needs(unit.needs),
                "state": None,
            }
            for place, value in values_of(task, batch=True):
                self._value(value, _select(own, places, place), tasks=True)
            if isinstance(unit, tree.TaskCall):
                self._called(unit, ("batch", "stateful", "local"), "batch")
            elif unit.image is None and "image" not in unit.specified:
                shown = unit.id.constant if unit.id and unit.id.constant else f"task-{number}"
                self._report.add(
                    f"Image for task {shown} is not specified",
                    task.at,
                    "Write `image:` into the task or one of its mixins.",
                )

    # Actions

    def _called(
        self, call: tree.Call | tree.TaskCall, kinds: tuple[str, ...], mode: str
    ) -> Action | None:
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
        action = self._actions.get(reference, value.at, self._report)
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
        self._action_file(action, module=call.module is not None)
        return action

    def _action_file(self, action: Action, *, module: bool) -> None:
        mark = (action.path.resolve(), module)
        if mark in self._checked:
            return
        self._checked.add(mark)
        file = action.file
        names: dict[str, Shape] = {
            "inputs": dict.fromkeys(file.inputs),
            "flow": {**(record(ActionFlowRecord) or {}), "life_span": None},
            "git": record(GitRecord),
            "strategy": _STRATEGY,
            "images": dict.fromkeys(file.images, record(ImageRecord)),
        }
        caller: Names = (
            dict.fromkeys(
                (*_PROJECT, *_DEFAULTS, "multi", "matrix", "needs", "state"),
            )
            if module
            else {}
        )
        if file.job is not None:
            own = {"inputs": names["inputs"], "flow": names["flow"]}
            for _, value in values_of(file.job, batch=False):
                self._value(value, {**caller, **own})
            if not module and file.job.mixins is not None:
                self._report.add("Mixins are not available in an action", file.job.mixins.at)
        inputs: Names = {"inputs": names["inputs"]}
        for unit in (file.main,):
            if unit is not None:
                for _, value in values_of(unit, batch=True):
                    self._value(value, inputs)
        if file.cmd is not None:
            self._value(file.cmd, inputs)
        if file.kind == "batch":
            places = {
                place: (*some, *caller) if place not in ("B0", "BM") else some
                for place, some in _ACTION_PLACES.items()
            }
            batch_names = {**caller, **names}
            every = {**batch_names, "matrix": None, "needs": None, "state": None}
            for image in file.images.values():
                for _, value in values_of(image, batch=True):
                    self._value(value, _select(every, places, "B1"))
            for output in file.outputs.values():
                if output.value is not None:
                    self._value(output.value, _select(every, places, "AO"))
            self._tasks(file.tasks, batch_names, places, None)

    def _value(self, value: Value, names: Names, *, tasks: bool = False) -> None:
        if value.template is not None:
            check_template(value.template, names, self._report, tasks=tasks)


def _flow_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix in (".yml", ".yaml") and path.is_file():
            yield path


def _file_values(
    file: tree.LiveFile | tree.BatchFile, *, batch: bool
) -> Iterator[tuple[str, Value]]:
    """The values outside of jobs, tasks and mixins."""
    sections: list[tree.Node] = [*file.images.values(), *file.volumes.values()]
    if file.defaults is not None:
        sections.append(file.defaults)
    if isinstance(file, tree.BatchFile):
        sections.extend(file.params.values())
    for section in sections:
        yield from values_of(section, batch=batch)


def _live_place(names: Names, place: str) -> Names:
    visible: tuple[str, ...]
    match place:
        case "L1":
            visible = ("project", "flow", "git")
        case "L2":
            visible = ("project", "flow", "git", *_DEFAULTS)
        case "L3" | "LA":
            return names
        case _:
            visible = ()
    return {name: names[name] for name in visible}


def _select(names: Names, places: Mapping[str, tuple[str, ...]], place: str) -> Names:
    return {name: names.get(name) for name in places.get(place, ())}


def _keys(values: MapValue | None) -> Shape:
    if values is None:
        return {}
    found = [key for key, _ in values.parts]
    return None if None in found else {key: None for key in found if key is not None}


def _matrix(strategy: tree.Strategy | None) -> Shape:
    if strategy is None or strategy.matrix is None:
        return {}
    return {**dict.fromkeys(strategy.matrix.products), "ORDINAL": None}


def _needs(needs: tree.Needs | None) -> Shape:
    """Without `needs` a task has those before it; an id with an expression may be any."""
    if needs is None or any(part.template is not None for part, _ in needs.parts):
        return None
    return {str(part.constant): _NEED for part, level in needs.parts if level != "running"}


def _first_of_each_place(report: Report) -> list[Problem]:
    """One problem a place: what is found there next is mostly the same in other words."""
    seen: set[Position] = set()
    found: list[Problem] = []
    for problem in report.sorted():
        if problem.at is not None:
            if problem.at in seen:
                continue
            seen.add(problem.at)
        found.append(problem)
    return found
