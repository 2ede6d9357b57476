"""Live jobs: from what a file says to what the platform is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.domain.problems import Problem, nearest
from neuro.flow.evaluate import names
from neuro.flow.evaluate.actions import Action, Actions, bind_inputs, check_literals
from neuro.flow.evaluate.calls import LIVE, find_called, report_no_mixins
from neuro.flow.evaluate.contexts import (
    ActionFlowRecord,
    FlowRecord,
    GitRecord,
    ImageRecord,
    MultiRecord,
    UnaskedGit,
    VolumeRecord,
)
from neuro.flow.evaluate.functions import live_functions
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.evaluate.params import bind_params
from neuro.flow.evaluate.sections import (
    EvaluatedDefaults,
    constant_flag,
    constant_text,
    evaluate_defaults,
    evaluate_image,
    evaluate_volume,
    merged_defaults,
    project_record,
)
from neuro.flow.evaluate.units import Owner, evaluate_unit
from neuro.flow.evaluate.values import ValueEvaluator
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.model import Unit
from neuro.flow.problems import FlowError, Report
from neuro.flow.syntax.tree import ActionJob, Call, LiveDefaults, LiveJob

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.environment import Environment, LiveEffects
    from neuro.flow.expressions.functions import Function
    from neuro.flow.syntax.tree import LiveFile, ProjectFile

_NOTHING: Mapping[str, str] = {}


class ResolvedJob(Unit, frozen=True, kw_only=True):
    """A live job with every expression evaluated."""

    id: str
    description: str | None
    detach: bool
    browse: bool
    port_forward: tuple[str, ...]
    multi: bool
    suffix: str | None


class LiveWorkflow:
    """The live workflow of a project: its jobs, volumes and images."""

    def __init__(
        self,
        *,
        root: Path,
        project_id: str,
        live: LiveFile,
        project: ProjectFile | None,
        environment: Environment,
        report: Report,
        checking: bool = False,
    ) -> None:
        self.project_id = project_id
        self.owner = constant_text(project.owner) if project is not None else None
        self.flow_id = constant_text(live.id) or "live"
        self.title = constant_text(live.title) or self.flow_id
        self.environment = environment
        self.actions = Actions(root, environment.cache_dir, network=not checking)
        self._root = root
        self._checking = checking
        self._live = live
        self._flow = FlowRecord(self.flow_id, project_id, root, self.title, environment.user)
        first = {
            "project": project_record(project_id, project, environment.user),
            "flow": self._flow,
            "git": (UnaskedGit if checking else GitRecord)(environment.cwd),
        }
        values = ValueEvaluator(ExpressionScope(first, self._functions(None)), report)
        own = live.defaults if live.defaults is not None else LiveDefaults(at=live.at)
        self._defaults = evaluate_defaults(merged_defaults(own, project), values)
        inherited = project.volumes if project is not None else {}
        self.volumes: Mapping[str, VolumeRecord] = {
            key: evaluate_volume(key, volume, values, root)
            for key, volume in {**inherited, **live.volumes}.items()
        }
        images = project.images if project is not None else {}
        self.images: Mapping[str, ImageRecord] = {
            key: evaluate_image(key, image, values, root, report)
            for key, image in {**images, **live.images}.items()
        }
        self.second: Mapping[str, object] = {
            **first,
            "env": self._defaults.env,
            "tags": frozenset([*self.flow_tags(), *self._defaults.tags]),
            "volumes": self.volumes,
            "images": self.images,
        }
        mixins = {**(project.mixins if project is not None else {}), **live.mixins}
        self.mixins = Mixins(mixins)
        self.jobs: Mapping[str, LiveJob | Call] = {
            key: job if isinstance(job, Call) else self.mixins.apply(job, job.mixins, report)
            for key, job in live.jobs.items()
        }
        self.job_ids = tuple(sorted(self.jobs))

    def is_multi(self, job_id: str) -> bool:
        """Tell whether a job may run several times at once. Reads the action of a call."""
        report = Report()
        multi = self.is_multi_job(self._job(job_id), report)
        report.raise_if_any()
        return multi

    def params_of(self, job_id: str) -> Mapping[str, str | None]:
        """Return a job's parameters: the default as a string, None where one must be given."""
        report = Report()
        values = ValueEvaluator(ExpressionScope(self.second, self._functions(None)), report)
        found = {
            name: None if param.default is None else _text(values.one(param.default))
            for name, param in self._job(job_id).params.items()
        }
        report.raise_if_any()
        return found

    def flow_tags(self) -> tuple[str, ...]:
        """Return the tags that all jobs of this workflow have."""
        return names.flow_tags(self.project_id, self.flow_id)

    def tags_of(self, job_id: str, suffix: str | None = None) -> tuple[str, ...]:
        """Return the tags that find a job, or one of a multi-job's, on the platform."""
        return names.job_tags(self.project_id, self.flow_id, job_id, suffix)

    def resolve(
        self,
        job_id: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        suffix: str | None = None,
        args: tuple[str, ...] = (),
        effects: LiveEffects,
        report: Report | None = None,
    ) -> ResolvedJob:
        """Evaluate a job. Raises FlowError with every problem found.

        ``report`` is given the notes on it.
        """
        report = report or Report()
        job = self._job(job_id)
        self._check_multi(job_id, job, suffix, args, report)
        report.raise_if_any()
        functions = self._functions(effects)
        values = ValueEvaluator(ExpressionScope(self.second, functions), report)
        bound = bind_params(job.params, params, values, report, whose="job", at=job.at)
        # A missing parameter would be told again by every expression that reads it.
        report.raise_if_any()
        resolved = self.evaluate(job_id, bound, suffix, args, effects, report)
        report.raise_if_any()
        assert resolved is not None  # no problem, so there is a job
        return resolved

    def evaluate(
        self,
        job_id: str,
        params: Mapping[str, str],
        suffix: str | None,
        args: tuple[str, ...],
        effects: LiveEffects,
        report: Report,
    ) -> ResolvedJob | None:
        """Evaluate a job whose parameters are known; None where it cannot be."""
        job = self._job(job_id)
        third: dict[str, object] = {**self.second, "params": params}
        if suffix is not None:
            third["multi"] = MultiRecord(_quote(args), suffix)
        if isinstance(job, Call):
            return self._call(job_id, job, third, suffix, effects, report)
        functions = self._functions(effects)
        values = ValueEvaluator(ExpressionScope(third, functions), report)
        return self._unit(job_id, job, job.at, values, self._defaults, suffix, report)

    def _check_multi(
        self,
        job_id: str,
        job: LiveJob | Call,
        suffix: str | None,
        args: tuple[str, ...],
        report: Report,
    ) -> None:
        multi = self.is_multi_job(job, report)
        if not multi and (suffix is not None or args):
            what = "A suffix is" if suffix is not None else "Additional arguments are"
            report.add(f"{what} for multi-jobs only, and '{job_id}' is not one", job.at)
        if multi and suffix is None:
            report.add(f"Job '{job_id}' is a multi-job: it needs a suffix", job.at)

    def _functions(
        self, effects: LiveEffects | None, *, inspects: bool = True
    ) -> Mapping[str, Function]:
        return live_functions(
            self._root,
            effects,
            self.tags_of if inspects else None,
            read_files=not self._checking,
        )

    def _job(self, job_id: str) -> LiveJob | Call:
        job = self.jobs.get(job_id)
        if job is None:
            known = ", ".join(self.job_ids)
            hint = nearest(job_id, self.job_ids) or f"Existing jobs: {known or 'none'}"
            raise FlowError([Problem(f"Unknown job {job_id}", None, hint)])
        return job

    def is_multi_job(self, job: LiveJob | Call, report: Report) -> bool:
        """Tell whether a job, or the job of the action it calls, is a multi-job."""
        if not isinstance(job, Call):
            return constant_flag(job.multi)
        action = self.action_of(job, report)
        return action is not None and constant_flag(live_job(action).multi)

    def action_of(self, call: Call, report: Report) -> Action | None:
        """Return the live action, or the module, that a call names."""
        action = find_called(
            call, LIVE, lambda reference, at: self.actions.get(reference, at, report), report
        )
        return action if action is not None and action.file.job is not None else None

    def _call(
        self,
        job_id: str,
        call: Call,
        third: Mapping[str, object],
        suffix: str | None,
        effects: LiveEffects,
        report: Report,
    ) -> ResolvedJob | None:
        action = self.action_of(call, report)
        if action is None:
            return None
        plain = self._functions(effects)
        argument_values = ValueEvaluator(ExpressionScope(third, plain), report)
        arguments = argument_values.mapping(call.args)
        if argument_values.unknown:
            return None
        where = {key: part.at for key, part in call.args.parts if key} if call.args else {}
        problems = len(report.problems)
        given = {name: (value, where.get(name, call.at)) for name, value in arguments.items()}
        check_literals(call.args, action.file.inputs, report)
        inputs = bind_inputs(given, action.file.inputs, call.at, report)
        if len(report.problems) > problems:
            return None
        flow = ActionFlowRecord(
            self.flow_id,
            self.project_id,
            self._root,
            self.title,
            self.environment.user,
            action.path.parent,
        )
        own: Mapping[str, object] = {"inputs": inputs, "flow": flow}
        functions = self._functions(effects, inspects=False)
        job = live_job(action)
        if call.module is not None:
            scope = ExpressionScope({**third, **own}, functions)
            job = self.mixins.apply(job, job.mixins, report)
            defaults = self._defaults
        else:
            scope = ExpressionScope(own, functions)
            if job.mixins is not None:
                report_no_mixins(job.mixins.at, report)
            defaults = EvaluatedDefaults({}, self._defaults.tags)
        values = ValueEvaluator(scope, report)
        return self._unit(job_id, job, call.at, values, defaults, suffix, report)

    def _unit(
        self,
        job_id: str,
        unit: LiveJob | ActionJob,
        at: Position,
        values: ValueEvaluator,
        defaults: EvaluatedDefaults,
        suffix: str | None,
        report: Report,
    ) -> ResolvedJob | None:
        return ResolvedJob(
            **evaluate_unit(
                unit,
                values,
                defaults,
                self.tags_of(job_id, suffix),
                Owner("job", job_id, at),
                report,
                default_name=names.default_job_name(self.project_id, job_id, suffix),
            ),
            id=job_id,
            description=values.text(unit.title) or f"{self.flow_id}.{job_id}",
            detach=bool(values.flag(unit.detach)),
            browse=bool(values.flag(unit.browse)),
            port_forward=values.texts(unit.port_forward),
            multi=suffix is not None,
            suffix=suffix,
        )


def live_job(action: Action) -> ActionJob:
    """Return the job of a live action that was read without problems."""
    assert action.file.job is not None
    return action.file.job


def _text(value: object) -> str:
    return str(value)


def _quote(args: tuple[str, ...]) -> str:
    import shlex

    return shlex.join(args)
