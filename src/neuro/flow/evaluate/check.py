"""Finds the problems of a workspace's flow files, without running what they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.flow.evaluate.actions import Action, Actions
from neuro.flow.evaluate.calls import LIVE
from neuro.flow.evaluate.check_names import ANYBODY, DEFAULTS, common_names
from neuro.flow.evaluate.check_tasks import TaskCheck
from neuro.flow.evaluate.contexts import FlowRecord, MultiRecord, VolumeRecord
from neuro.flow.evaluate.doubts import doubt_hashes
from neuro.flow.evaluate.jobs import LiveWorkflow
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.evaluate.sections import constant_flag, constant_text
from neuro.flow.evaluate.static import Names, check_template, record, values_of
from neuro.flow.evaluate.units import Owner, report_no_image
from neuro.flow.evaluate.values import Unknowable, ValueEvaluator
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Stage
from neuro.flow.syntax.reader import load_source, read_any, read_live
from neuro.flow.workspace import flow_file

if TYPE_CHECKING:
    from neuro.domain.jobs import Job
    from neuro.domain.problems import Problem
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.syntax.types import Value
    from neuro.flow.workspace import Workspace


def check_workspace(
    workspace: Workspace,
    project_id: str,
    project: tree.ProjectFile | None,
    environment: Environment,
    report: Report,
) -> list[Problem]:
    """Find every problem, in the order of files and places; the report has those of the project."""
    return _Check(workspace, project_id, project, environment, report).run()


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
    def __init__(
        self,
        workspace: Workspace,
        project_id: str,
        project: tree.ProjectFile | None,
        environment: Environment,
        report: Report,
    ) -> None:
        self._workspace = workspace
        self._project_id = project_id
        self._project = project
        self._environment = environment
        self._report = report
        self._of_project = tuple(report.problems)
        self._actions = Actions(workspace.root, environment.cache_dir, network=False)
        self._tasks = TaskCheck(self._actions, self._report)

    def run(self) -> list[Problem]:
        project, user = self._project, self._environment.user
        owner = constant_text(project.owner) if project is not None else None
        if project is not None and project.owner is not None and user and owner != user:
            self._report.note(
                f"The project belongs to {owner}, and you are logged in as {user}:"
                " commands that need a platform refuse it",
                project.owner.at,
                "Remove `owner:` to work in a project of your own.",
            )
        config_dir = self._workspace.config_dir
        live, own = flow_file(config_dir, "live"), flow_file(config_dir, "project")
        if live is not None:
            self._live_path(live)
        for path in sorted(_flow_files(config_dir)):
            if path not in (live, own):
                self._any_path(path)
        return self._report.first_of_each_place()

    def _live_path(self, path: Path) -> None:
        source = load_source(path, self._report)
        file = read_live(source, self._report) if source is not None else None
        if file is not None:
            doubt_hashes(file, self._workspace.root, self._report, batch=False)
            self._live(file)

    def _any_path(self, path: Path) -> None:
        report = Report()
        source = load_source(path, report)
        file = read_any(source, report) if source is not None else None
        if file is not None:
            doubt_hashes(file, self._workspace.root, report, batch=True)
        if isinstance(file, tree.BatchFile):
            batch = path.relative_to(self._workspace.config_dir).with_suffix("").as_posix()
            self._batch(batch, file, report)
        self._report.take(report.problems, report.notes)
        if isinstance(file, tree.ActionFile):
            self._action(Action(file, path))

    def _action(self, action: Action) -> None:
        # Imported here: with what evaluates batches, for those who have some.
        from neuro.flow.evaluate.batch.sources import DiskFiles
        from neuro.flow.evaluate.batch.unknown import unknown_ground

        name = action.path.relative_to(self._workspace.root).with_suffix("").as_posix()
        files = DiskFiles(self._workspace, name, self._actions)
        self._tasks.file(action, name, unknown_ground(files, self._facts(name)))

    def _facts(self, name: str) -> Facts:
        from neuro.flow.evaluate.batch.facts import NO_BAKE, Facts

        return Facts(
            bake_id=NO_BAKE,
            batch=name,
            workspace=self._workspace.root,
            user=self._environment.user,
            collecting=True,
            checking=True,
        )

    def _batch(self, name: str, file: tree.BatchFile, report: Report) -> None:
        """Plan a batch as if nothing were given: what a plan would refuse in any case is wrong."""
        # Imported here: with what evaluates batches, for those who have some.
        from neuro.flow.evaluate.batch.sources import DiskFiles
        from neuro.flow.evaluate.batch.survey import survey
        from neuro.flow.evaluate.batch.workflow import BatchFiles

        report.take(self._of_project)
        survey(
            BatchFiles(file, self._project, self._project_id),
            DiskFiles(self._workspace, name, self._actions),
            self._facts(name),
            {},
            report,
        )

    # Live

    def _live(self, file: tree.LiveFile) -> None:
        readable = not self._report.problems
        project = self._project
        names = self._live_names(file)
        for stage, value in _file_values(file):
            self._value(value, _live_names(names, stage))
        mixins = Mixins({**(project.mixins if project else {}), **file.mixins})
        mixins.check(file.mixins, self._report)
        for mixin in file.mixins.values():
            self._unit_values(mixin, names, None)
        for job_id, job in file.jobs.items():
            if isinstance(job, tree.Call):
                self._live_call(job, names)
                continue
            before = len(self._report.problems)
            unit = mixins.apply(job, job.mixins, self._report)
            # A mixin that is not there, or an image that is wrong, is reported already.
            complete = len(self._report.problems) == before
            self._unit_values(job, names, unit)
            if complete and unit.image is None and ("image" not in unit.specified or readable):
                report_no_image(Owner("job", job_id, job.at), self._report)
        if not self._report.problems:
            self._evaluate(file)

    def _unit_values(self, unit: tree.LiveUnit, names: Names, whole: tree.LiveUnit | None) -> None:
        """Check a job's values; a mixin's without its jobs, whose parameters it may read."""
        third = dict(names)
        third["params"] = dict.fromkeys(whole.params) if whole is not None else None
        if whole is None or constant_flag(whole.multi):
            third["multi"] = record(MultiRecord)
        for stage, value in values_of(unit, batch=False):
            self._value(value, _live_names(third, stage))

    def _live_call(self, call: tree.Call, names: Names) -> None:
        third = {**names, "params": dict.fromkeys(call.params)}
        called = self._tasks.called(call, LIVE, ANYBODY)
        job = called.file.job if called is not None else None
        if called is None or (job is not None and constant_flag(job.multi)):
            third["multi"] = record(MultiRecord)
        for stage, value in values_of(call, batch=False):
            self._value(value, _live_names(third, stage))

    def _live_names(self, file: tree.LiveFile) -> Names:
        return {**common_names(file, self._project, FlowRecord), "params": {}}

    def _evaluate(self, file: tree.LiveFile) -> None:
        """Evaluate what is known before a job runs: conversions show what types do not."""
        workflow = LiveWorkflow(
            root=self._workspace.root,
            project_id=self._project_id,
            live=file,
            project=self._project,
            environment=self._environment,
            report=self._report,
            checking=True,
        )
        for job_id, job in workflow.jobs.items():
            values = ValueEvaluator(ExpressionScope(workflow.second), self._report)
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

    def _value(self, value: Value, names: Names) -> None:
        if value.template is not None:
            check_template(value.template, names, self._report)


def _flow_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix in (".yml", ".yaml") and path.is_file():
            yield path


def _file_values(file: tree.LiveFile) -> Iterator[tuple[Stage | None, Value]]:
    """The values outside of jobs and mixins."""
    sections: list[tree.TreeNode] = [*file.images.values(), *file.volumes.values()]
    if file.defaults is not None:
        sections.append(file.defaults)
    for section in sections:
        yield from values_of(section, batch=False)


def _live_names(names: Names, stage: Stage | None) -> Names:
    visible: tuple[str, ...]
    match stage:
        case Stage.SECTIONS:
            visible = ("project", "flow", "git")
        case Stage.PARAMS:
            visible = ("project", "flow", "git", *DEFAULTS)
        case Stage.JOB:
            return names
        case _:
            visible = ()
    return {name: names[name] for name in visible}
