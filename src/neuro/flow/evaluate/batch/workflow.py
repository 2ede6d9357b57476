"""A batch workflow: its graphs and its tasks, as far as outcomes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from neuro.flow.evaluate import names as naming
from neuro.flow.evaluate.batch import graph as graphs
from neuro.flow.evaluate.batch.contexts import (
    OPEN,
    BatchFlowRecord,
    CommitRecord,
    GroupTarget,
    Member,
    Partial,
    RowsToCome,
    StrategyRecord,
    Target,
    Volumes,
)
from neuro.flow.evaluate.batch.functions import batch_functions
from neuro.flow.evaluate.batch.ground import DEFAULT_MAX_PARALLEL, Frame, Ground, Place
from neuro.flow.evaluate.batch.ids import Nodes, with_rows
from neuro.flow.evaluate.batch.rows import element_rows, post_node, row_names, row_node
from neuro.flow.evaluate.batch.tasks import Evaluation, cache_rule, evaluate_images
from neuro.flow.evaluate.batch.values import HashCalls
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.evaluate.params import bind_params
from neuro.flow.evaluate.sections import (
    constant_text,
    evaluate_defaults,
    evaluate_volume,
    merged_defaults,
    project_record,
)
from neuro.flow.evaluate.values import ValueEvaluator
from neuro.flow.expressions.evaluator import ExpressionScope
from neuro.flow.model import (
    ROOT,
    CacheRule,
    FullId,
    Graph,
    LocalCommand,
    Node,
    NodeKind,
    ResolvedTask,
)
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.reader import read_batch, read_project

if TYPE_CHECKING:
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.batch.graph import Built
    from neuro.flow.evaluate.batch.sources import Files
    from neuro.flow.evaluate.contexts import ImageRecord, VolumeRecord
    from neuro.flow.model import Outcomes
    from neuro.flow.syntax.types import Always

R = TypeVar("R")

_NO_OUTCOMES: Outcomes = {}
_NO_ROW: Mapping[str, object] = {}


class BatchWorkflow:
    """A batch, evaluated once as far as all its tasks share it.

    What a method needs of outcomes is in the mapping it is given; missing ones are not known yet,
    and a value that reads one is an error. Calls that were opened and groups that were expanded
    are remembered, so that `outputs` and those who need a group can be evaluated later.
    """

    def __init__(
        self,
        read: BatchFiles,
        files: Files,
        facts: Facts,
        params: Mapping[str, str],
        report: Report,
    ) -> None:
        file, project = read.file, read.project
        self.project_id = project_id = read.project_id
        self.batch = facts.batch
        self.flow_id = constant_text(file.id) or facts.batch.replace("-", "_")
        self.title = constant_text(file.title) or self.flow_id
        self.file = file
        self.project = project
        functions = batch_functions(facts)
        alone = ValueEvaluator(ExpressionScope({}, functions), report)
        self.life_span = alone.number(file.life_span)
        bound = bind_params(
            file.params, params, alone, report, whose="batch", at=None, checking=facts.checking
        )
        self.params = Partial(bound, open=frozenset(file.params) - bound.keys())
        self.ground = Ground(
            facts=facts,
            files=files,
            functions=functions,
            flow=BatchFlowRecord(
                self.flow_id,
                project_id,
                facts.workspace,
                self.title,
                facts.user,
                self.life_span,
            ),
            git=CommitRecord(facts.git, given=not facts.checking),
            flow_tags=naming.flow_tags(project_id, self.flow_id),
            max_parallel=DEFAULT_MAX_PARALLEL,
            hashes=HashCalls() if facts.collecting else None,
        )
        self._frames: dict[FullId, Frame] = {ROOT: self._root_frame(report)}
        self._graphs: dict[FullId, Graph] = {}
        # Of graphs that are open, by their prefix: with the rows that outputs have decided.
        self._nodes: dict[FullId, Nodes] = {}

    def _root_frame(self, report: Report) -> Frame:
        ground, file, project = self.ground, self.file, self.project
        first: dict[str, object] = {
            "project": project_record(self.project_id, project, ground.facts.user),
            "flow": ground.flow,
            "git": ground.git,
            "params": self.params,
        }
        self._first = first
        values = ground.values(first, report)
        own = file.defaults if file.defaults is not None else tree.Defaults(at=file.at)
        merged = merged_defaults(own, project)
        defaults = evaluate_defaults(merged, values)
        is_open = values.unknown
        self.volumes = self._evaluated_volumes(report)
        images = project.images if project is not None else {}
        names: dict[str, object] = {
            **first,
            "env": OPEN if is_open else defaults.env,
            "tags": OPEN if is_open else frozenset([*ground.flow_tags, *defaults.tags]),
            "volumes": self.volumes,
            "images": evaluate_images({**images, **file.images}, first, ROOT, ground, report),
        }
        second = ground.values(names, report)
        ground.max_parallel = second.parallel(merged.max_parallel) or DEFAULT_MAX_PARALLEL
        fail_fast = second.flag(merged.fail_fast)
        cache = CacheRule()
        if project is not None and project.defaults is not None:
            cache = cache_rule(cache, project.defaults.cache, second)
        if file.defaults is not None:
            cache = cache_rule(cache, file.defaults.cache, second)
        mixins = {**(project.mixins if project is not None else {}), **file.mixins}
        return Frame(
            prefix=ROOT,
            names=names,
            strategy=StrategyRecord(True if fail_fast is None else fail_fast, ground.max_parallel),
            defaults=defaults,
            cache=cache,
            mixins=Mixins(mixins),
            tasks=file.tasks,
        )

    def _evaluated_volumes(self, report: Report) -> Volumes:
        inherited = self.project.volumes if self.project is not None else {}
        known: dict[str, VolumeRecord] = {}
        open: set[str] = set()
        for key, volume in {**inherited, **self.file.volumes}.items():
            values = self.early_values(report)
            known[key] = evaluate_volume(key, volume, values, self.ground.facts.workspace)
            if values.unknown:
                del known[key]
                open.add(key)
        return Volumes(known, frozenset(open))

    # Questions of an executor

    def root(self) -> Graph:
        """The outermost graph."""
        return self._strict(self.build_root)

    def enable(self, node: Node, outcomes: Outcomes) -> bool | Always:
        """Whether a node runs. Of a GROUP it is asked first: what is not, need not expand."""
        report = Report()
        evaluation = self._evaluation(node, outcomes, report)
        found = evaluation.enable()
        # The rows of a group are asked one by one for what reads their matrix.
        return self._known(found, evaluation, report, may_wait=node.kind is NodeKind.GROUP)

    def task(
        self, node: Node, outcomes: Outcomes, state: Mapping[str, str] | None = None
    ) -> ResolvedTask:
        """Evaluate a TASK, STATEFUL or POST; `state` is what a POST's main has saved."""
        report = Report()
        evaluation = self._evaluation(node, outcomes, report)
        return self._known(evaluation.task(state), evaluation, report)

    def open(self, node: Node, outcomes: Outcomes) -> Graph:
        """Evaluate the inputs of a CALL, and return the graph below it."""
        report = Report()
        evaluation = self._evaluation(node, outcomes, report)
        frame = self._known(evaluation.opened(), evaluation, report)
        return self._strict(lambda report: self.build(frame, report))

    def expand(self, node: Node, outcomes: Outcomes) -> tuple[Node, ...]:
        """The rows of a GROUP: nodes beside it, with its needs, whose `group` is its id."""
        assert isinstance(node.source, Place)
        report, place = Report(), node.source
        if place.is_post:
            return self._expand_posts(node, place)
        element = place.element
        needs = self.ground.needs(place.targets, outcomes)
        rows = element_rows(element, self.ground, needs, report)
        report.raise_if_any()
        if rows is None:
            report.add("The matrix depends on a value that is not known yet", node.at)
            report.raise_if_any()
            rows = ()
        names, _ = row_names(element, rows, self.ground, report)
        members = tuple(
            Member((*node.id[:-1], name), row)
            for name, row in zip(names, rows, strict=True)
            if name is not None
        )
        found = tuple(
            row_node(element, member, node.needs, place.targets, node.id, self.ground, report)
            for member in members
        )
        self._take_rows(node, found, report)
        self.ground.expanded[node.id] = members
        return found

    def _expand_posts(self, node: Node, place: Place) -> tuple[Node, ...]:
        """The post parts for the rows that its mains had."""
        assert node.main is not None  # it was made of them
        mains = self.ground.expanded.get(node.main, ())
        found = []
        for member in mains:
            main = structs.replace(node, id=member.id, kind=place.element.kind)
            targets = {**place.targets, member.id[-1]: member.id}
            found.append(post_node(main, member, node.needs, targets, self.ground, node.id))
        self._take_rows(node, found, Report())
        self.ground.expanded[node.id] = tuple(Member(post.id, _NO_ROW) for post in found)
        return tuple(found)

    def _take_rows(self, group: Node, rows: Iterable[Node], report: Report) -> None:
        prefix = group.id[:-1]
        nodes = with_rows(self._nodes.get(prefix, {}), group, rows, report)
        report.raise_if_any()
        self._nodes[prefix] = nodes

    def outputs(self, node: Node, inner: Outcomes) -> dict[str, str]:
        """The outputs of a CALL that was opened, of the outcomes of all nodes of its graph."""
        report = Report()
        found, unknown = self.examine_outputs(node, inner, report)
        report.raise_if_any()
        if unknown:
            report.add("The outputs depend on a value that is not known yet", node.at)
            report.raise_if_any()
        return found

    def local(self, node: Node, outcomes: Outcomes) -> LocalCommand:
        """Evaluate a LOCAL."""
        report = Report()
        evaluation = self._evaluation(node, outcomes, report)
        return self._known(evaluation.local(), evaluation, report)

    def image(self, ref: str) -> ImageRecord | None:
        """The definition of an image by its reference, of the batch or of a call opened so far."""
        for built in self.ground.images.values():
            if built.record.ref == ref:
                return built.record
        return None

    # Questions of planning: problems are collected, unknown values are left out

    def early_values(self, report: Report) -> ValueEvaluator:
        """Make what evaluates the keys of the file itself: `Stage.SECTIONS`."""
        return self.ground.values(self._first, report)

    @property
    def root_frame(self) -> Frame:
        """Where the batch's own tasks stand."""
        return self._frames[ROOT]

    def build_root(self, report: Report) -> Graph:
        """Build the outermost graph, once."""
        if ROOT not in self._graphs:
            return self.build(self._frames[ROOT], report)
        return self._graphs[ROOT]

    def build(self, frame: Frame, report: Report) -> Graph:
        """Build the graph of a frame, and remember it if there is nothing wrong with it."""
        return self.built(frame, report).graph

    def built(self, frame: Frame, report: Report) -> Built:
        """Build the graph of a frame like `build`, and return its elements too."""
        before = len(report.problems)
        built = graphs.build(frame, self.ground, report)
        found = built.graph
        if len(report.problems) == before:
            self._frames[frame.prefix], self._graphs[frame.prefix] = frame, found
            self._nodes[frame.prefix] = found.nodes
        return built

    def examine(self, node: Node, report: Report) -> Evaluation:
        """Make what evaluates a node before anything has run."""
        return self._evaluation(node, _NO_OUTCOMES, report)

    def examine_outputs(
        self, node: Node, inner: Outcomes, report: Report
    ) -> tuple[dict[str, str], bool]:
        """Evaluate the outputs of an opened call, and tell whether some are not known."""
        frame, inside = self._frames.get(node.id), self._graphs.get(node.id)
        if frame is None or inside is None:
            return {}, True
        targets: dict[str, Target] = {one[-1]: one for one in inside.nodes}
        groups: dict[FullId, list[Member]] = {}
        for one in inside.nodes.values():
            if one.group is not None and isinstance(one.source, Place):
                groups.setdefault(one.group, []).append(Member(one.id, one.source.matrix))
            elif one.kind is NodeKind.GROUP:
                targets[one.id[-1]] = GroupTarget(one.id, None)
        for group, members in groups.items():
            targets[group[-1]] = GroupTarget(group, tuple(members))
        for group in self.ground.expanded:
            if group[:-1] == node.id:
                rows = self.ground.expanded[group]
                targets.update({row.id[-1]: row.id for row in rows})
        sources = [one.source for one in inside.nodes.values() if isinstance(one.source, Place)]
        if any(one.element.open or one.element.is_unread for one in sources):
            targets = RowsToCome(targets)
        names = {
            **frame.names,
            "strategy": frame.strategy,
            "needs": self.ground.needs(targets, inner),
        }
        values = self.ground.values(names, report)
        found = {
            name: str(values.one(output.value))
            for name, output in frame.outputs.items()
            if output.value is not None
        }
        return found, values.unknown

    def _evaluation(self, node: Node, outcomes: Outcomes, report: Report) -> Evaluation:
        return Evaluation(node, outcomes, self.ground, report)

    def _strict(self, build: Callable[[Report], Graph]) -> Graph:
        report = Report()
        graph = build(report)
        report.raise_if_any()
        return graph

    def _known(
        self, found: R, evaluation: Evaluation, report: Report, *, may_wait: bool = False
    ) -> R:
        report.raise_if_any()
        if evaluation.unknown and not may_wait:
            report.add(
                f"Task {evaluation.node.id[-1]} depends on a value that is not known yet",
                evaluation.node.at,
            )
            report.raise_if_any()
        return found


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """The files of a batch, read."""

    file: tree.BatchFile
    project: tree.ProjectFile | None
    project_id: str


def read_files(files: Files, report: Report) -> BatchFiles | None:
    """Read a batch's file and its project's. None where the batch cannot be read."""
    project_source = files.project(report)
    project = read_project(project_source, report) if project_source is not None else None
    source = files.flow(report)
    file = read_batch(source, report) if source is not None else None
    project_id = constant_text(project.id) if project is not None else None
    if project_id is None and project_source is None:
        try:
            project_id = naming.default_project_id(files.workspace)
        except ValueError as error:
            report.add(str(error), None)
    # Without an id the reader has told what is wrong with it.
    return BatchFiles(file, project, project_id or "project") if file is not None else None


def stored_batch(files: Files, facts: Facts, params: Mapping[str, str]) -> BatchWorkflow:
    """Make a bake's workflow of what was stored with it. Raises FlowError where that is broken."""
    report = Report()
    read = read_files(files, report)
    report.raise_if_any()
    assert read is not None  # no problem, so there is a file
    workflow = BatchWorkflow(read, files, facts, params, report)
    report.raise_if_any()
    return workflow
