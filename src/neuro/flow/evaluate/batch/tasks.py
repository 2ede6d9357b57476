"""Resolved tasks: a node's values, evaluated with the outcomes of those that it needs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from neuro.domain.flows import tag_form
from neuro.flow.evaluate.actions import bind_inputs, check_names
from neuro.flow.evaluate.batch.contexts import UNKNOWN, BatchActionFlowRecord, Partial
from neuro.flow.evaluate.batch.ground import BuiltImage, Element, Frame, Ground, Place
from neuro.flow.evaluate.calls import reference_of
from neuro.flow.evaluate.sections import EvaluatedDefaults, evaluate_image, is_storage
from neuro.flow.evaluate.units import Owner, evaluate_unit
from neuro.flow.evaluate.values import Unknowable
from neuro.flow.model import (
    CacheRule,
    LocalCommand,
    Node,
    NodeKind,
    ResolvedTask,
    RetryPolicy,
    join_id,
)
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.types import ALWAYS, MapValue

if TYPE_CHECKING:
    from neuro.domain.bakes import TaskStatus
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.actions import Action
    from neuro.flow.evaluate.contexts import ImageRecord
    from neuro.flow.evaluate.values import ValueEvaluator
    from neuro.flow.model import FullId, Outcomes
    from neuro.flow.syntax.types import Always, Value

# The state that a main has saved; not known before.
State = Mapping[str, object]

_NOT_CACHED = CacheRule(strategy="none")


class Evaluation:
    """Evaluates one node. `unknown` tells that something of it is not known yet."""

    def __init__(self, node: Node, outcomes: Outcomes, ground: Ground, report: Report) -> None:
        assert isinstance(node.source, Place)
        self.node = node
        self.place = node.source
        self.element: Element = node.source.element
        self.frame: Frame = node.source.element.frame
        self.outcomes = outcomes
        self.ground = ground
        self.report = report
        self.unknown = False

    # Whether it runs

    def enable(self) -> bool | Always:
        """Whether the node runs; True where that is not known yet."""
        if self.place.is_post:
            return self._enable_post()
        return self._enabled(self.element.task.enable, None)

    def _enable_post(self) -> bool | Always:
        main = self.outcomes.get(self.node.main) if self.node.main is not None else None
        action = _action(self.element)
        if action.file.post_if is not None and self.node.kind is NodeKind.POST:
            return self._enabled(action.file.post_if, main.state if main is not None else UNKNOWN)
        # A skipped task has nothing to clean up.
        return False if main is not None and _is_skipped(main.result) else ALWAYS

    def _enabled(self, value: Value | None, state: State | None) -> bool | Always:
        if value is None:
            try:
                return self.ground.needs(self.place.targets, self.outcomes).all_fine()
            except Unknowable:
                self.unknown = True
                return True
        if value.template is None:
            return ALWAYS if value.constant is ALWAYS else bool(value.constant)
        values = self._values(self._names(state))
        found = values.one(value)
        self.unknown |= values.unknown
        if found is ALWAYS:
            return ALWAYS
        return True if values.unknown else bool(found)

    # Tasks

    def task(self, state: State | None) -> ResolvedTask:
        """Evaluate a job's values."""
        task, frame = self.element.task, self.frame
        match self.place.kind:
            case NodeKind.STATEFUL:
                action = _action(self.element)
                assert action.file.main is not None  # the reader insists on it
                names = self._only_inputs(task, action)
                return self._unit(action.file.main, names, self._foreign(task), None)
            case NodeKind.POST:
                action = _action(self.element)
                assert action.file.post is not None  # there is no such node without
                names = self._names(state)
                return self._unit(action.file.post, names, self._foreign(task), None)
        assert isinstance(task, tree.Task)
        return self._unit(task, self._names(state), frame.defaults, task)

    def _foreign(self, task: tree.Task | tree.TaskCall) -> EvaluatedDefaults:
        """The defaults that reach an action's file."""
        defaults = self.frame.defaults
        if isinstance(task, tree.TaskCall) and task.module is not None:
            return defaults
        return EvaluatedDefaults({}, defaults.tags)

    def _unit(
        self,
        unit: tree.ExecUnit,
        names: Mapping[str, object],
        defaults: EvaluatedDefaults,
        task: tree.Task | None,
    ) -> ResolvedTask:
        full_id = self.node.id
        values = self._values(names)
        tags = (
            *self.ground.flow_tags,
            f"task:{tag_form(join_id(full_id))}",
            f"bake_id:{self.ground.facts.bake_id}",
        )
        whose = Owner("task", full_id[-1], unit.at)
        has_no_mixins = self.frame.mixins is None and task is not None and task.mixins is not None
        resolved = ResolvedTask(
            # First: only of what the image reads does it matter there whether it is known.
            **evaluate_unit(
                unit, values, defaults, tags, whose, self.report, image_is_told=has_no_mixins
            ),
            id=full_id,
            title=values.text(unit.title),
            enable=self.enable(),
            fail_fast=self.element.strategy.fail_fast,
            max_parallel=self.element.strategy.max_parallel,
            cache=_NOT_CACHED if task is None else cache_rule(self.frame.cache, task.cache, values),
            retry=_retry(task, values),
            timeout=values.number(task.timeout) or None if task is not None else None,
        )
        self.unknown |= values.unknown
        return resolved

    # Calls

    def local(self) -> LocalCommand:
        """Evaluate the command of a local action."""
        action = _action(self.element)
        assert action.file.cmd is not None  # the reader insists on it
        values = self._values(self._only_inputs(self.element.task, action))
        text = values.text(action.file.cmd) or ""
        self.unknown |= values.unknown
        try:
            words = shlex.split(text)
        except ValueError as error:
            sentence = str(error)[0].lower() + str(error)[1:]
            self.report.add(
                f"The command cannot be split into words: {sentence}", action.file.cmd.at
            )
            words = []
        return LocalCommand(self.node.id, tuple(words))

    def opened(self) -> Frame:
        """Evaluate the inputs of a call: what is known of them is known inside."""
        ground, report = self.ground, self.report
        task, action = self.element.task, _action(self.element)
        assert isinstance(task, tree.TaskCall)
        names = self._names(None)
        flow = BatchActionFlowRecord(
            ground.flow.flow_id,
            ground.flow.project_id,
            ground.flow.workspace,
            ground.flow.title,
            ground.flow.username,
            ground.flow.life_span,
            action.path.parent,
        )
        is_module = task.module is not None
        strategy = self.element.strategy
        own: dict[str, object] = {
            **(names if is_module else {}),
            "inputs": self._inputs(task, action, names),
            "flow": flow,
            "git": ground.git,
        }
        images = evaluate_images(
            action.file.images, {**own, "strategy": strategy}, self.node.id, ground, report
        )
        outer = names.get("images") if is_module else None
        if isinstance(outer, Partial):
            images = Partial(
                {**outer, **images}, outer.late | images.late, outer.open | images.open
            )
        own["images"] = images
        values = self._values(names)
        cache = cache_rule(self.frame.cache, task.cache, values)
        self.unknown |= values.unknown
        cache = cache_rule(cache, action.file.cache, self._values({**own, "strategy": strategy}))
        return Frame(
            prefix=self.node.id,
            names=own,
            strategy=strategy,
            defaults=self._foreign(task),
            cache=cache,
            mixins=self.frame.mixins if is_module else None,
            tasks=action.file.tasks,
            outputs=action.file.outputs,
            calls=(*self.frame.calls, reference_of(task)),
        )

    def _only_inputs(self, task: tree.Task | tree.TaskCall, action: Action) -> Mapping[str, object]:
        assert isinstance(task, tree.TaskCall)
        names = self._names(None)
        inputs = self._inputs(task, action, names)
        return {**(names if task.module is not None else {}), "inputs": inputs}

    def _inputs(
        self, task: tree.TaskCall, action: Action, names: Mapping[str, object]
    ) -> Partial[object]:
        declared, report = action.file.inputs, self.report
        given: dict[str, tuple[object, Position]] = {}
        unknown: set[str] = set()
        late: set[str] = set()
        complete = True
        for key, part in task.args.parts if task.args is not None else ():
            # A report of its own: the problems may be reported already.
            told = Report()
            values = self.ground.values(names, told)
            found = values.mapping(MapValue(part.type, part.at, ((key, part),)))
            given.update({name: (value, part.at) for name, value in found.items()})
            for problem in told.problems:
                report.add(problem.message, problem.at, problem.hint)
            if values.unknown or told.problems:
                complete &= key is not None
                names_here = found if key is not None else declared.keys() - given.keys()
                unknown.update(names_here)
                if values.late:
                    late.update(names_here)
        if not complete:
            unknown.update(name for name in declared if name not in given)
        self.unknown |= bool(unknown)
        where = {name: at for name, (_, at) in given.items()}
        check_names(where, declared, task.at, report, complete=complete)
        known = {name: one for name, one in declared.items() if name not in unknown}
        mine = {name: one for name, one in given.items() if name in known}
        bound = bind_inputs(mine, known, task.at, report)
        # A missing or wrong argument is reported already, and is not known inside.
        left = frozenset(declared) - bound.keys()
        return Partial(bound, left & late, left - late)

    # Scopes

    def _names(self, state: State | None) -> dict[str, object]:
        return self.place.names(self.ground, self.outcomes, state)

    def _values(self, names: Mapping[str, object]) -> ValueEvaluator:
        return self.ground.values(names, self.report)


def cache_rule(before: CacheRule, cache: tree.Cache | None, values: ValueEvaluator) -> CacheRule:
    """Take what a `cache:` says over the rule of what is around it."""
    if cache is None:
        return before
    strategy = cache.strategy
    life_span = values.number(cache.life_span)
    key = values.text(cache.key)
    return CacheRule(
        before.strategy if strategy in (None, "inherit") else str(strategy),
        before.life_span if life_span is None else life_span,
        before.key if key is None else key,
    )


def evaluate_images(
    images: Mapping[str, tree.Image],
    names: Mapping[str, object],
    prefix: FullId,
    ground: Ground,
    report: Report,
) -> Partial[ImageRecord]:
    """Evaluate a file's images; those that are known are noted with the id of their definition."""
    known: dict[str, ImageRecord] = {}
    late: set[str] = set()
    open: set[str] = set()
    for key, image in images.items():
        values = ground.values(names, report)
        record = evaluate_image(key, image, values, ground.facts.workspace, report)
        if values.unknown:
            (late if values.late else open).add(key)
        else:
            known[key] = record
        if _is_buildable(image, names, ground, report):
            full_id = (*prefix, key)
            ground.images[full_id] = BuiltImage(full_id, image, record)
    return Partial(known, frozenset(late), frozenset(open))


def _is_buildable(
    image: tree.Image, names: Mapping[str, object], ground: Ground, report: Report
) -> bool:
    """Whether it is known where an image is built from; a local folder's must be, at submission."""
    if image.context is None:
        return False
    where, rest = ground.values(names, report), ground.values(names, report)
    context = where.text(image.context)
    rest.text(image.ref)
    rest.text(image.dockerfile)
    if where.unknown or not rest.unknown:
        return not where.unknown
    if context is not None and not is_storage(context) and rest.late and ground.facts.collecting:
        report.add(
            "An image that is built of a local folder must be known when the bake is submitted: "
            "it may not depend on outputs of tasks",
            image.at,
        )
    return False


def _retry(task: tree.Task | None, values: ValueEvaluator) -> RetryPolicy:
    if task is None or task.retry is None:
        return RetryPolicy()
    attempts = values.number(task.retry.attempts)
    backoff = values.number(task.retry.backoff)
    return RetryPolicy(
        1 if attempts is None else int(attempts),
        values.number(task.retry.delay) or 0.0,
        1.0 if backoff is None else float(backoff),
    )


def _action(element: Element) -> Action:
    assert element.action is not None  # only calls are evaluated so
    return element.action


def _is_skipped(result: TaskStatus) -> bool:
    return result.value == "skipped"
