"""A batch before it runs: looks at every graph, evaluates all values that are known.

Planning and checking are this walk. A plan is given parameters and a commit, a check nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuro.domain.bakes import Concurrency, Graphs
from neuro.flow.evaluate.batch.circles import needs_at
from neuro.flow.evaluate.batch.contexts import UNKNOWN
from neuro.flow.evaluate.batch.ground import Ground, Place
from neuro.flow.evaluate.batch.workflow import BatchFiles, BatchWorkflow
from neuro.flow.evaluate.check_tasks import TaskCheck, no_upload, upload_before
from neuro.flow.expressions.values import URI
from neuro.flow.model import FullId, Graph, Node, NodeKind, ResolvedTask, join_id
from neuro.flow.order import in_order
from neuro.flow.problems import Report
from neuro.flow.syntax import tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuro.domain.problems import Position
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.batch.sources import DiskFiles

MOST_NODES = 100_000


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image with a context to build it from; `yaml_defs` are the ids of its definitions."""

    ref: str
    context: Path | URI
    dockerfile_rel: str
    yaml_defs: tuple[str, ...]
    force_rebuild: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """The content of a batch's files, evaluated as far as it is known.

    `nodes` are those of every graph that is known, by their joined ids. `graphs` has them as the
    wire does: a GROUP is a placeholder for rows that outputs decide.
    """

    workflow: BatchWorkflow
    graphs: Graphs
    nodes: Mapping[str, Node]
    images: tuple[PlannedImage, ...]
    concurrency: Concurrency | None
    # Where each preset is asked for first.
    presets: Mapping[str, Position]


def survey(
    read: BatchFiles,
    files: DiskFiles,
    facts: Facts,
    params: Mapping[str, str],
    report: Report,
) -> Survey | None:
    """Look at a batch and all that it reaches. None where its files could not be read whole.

    The report is the batch's own: what reading its files has told is in it already.
    """
    readable = not report.problems
    check = TaskCheck(files.actions, report)
    around = check.batch(facts.batch, read.file, read.project)
    workflow = BatchWorkflow(read, files, facts, params, report)
    check.tasks(around, workflow)
    if not readable:
        # A key missing from the tree would be reported again by everything made of it.
        return None
    walk = _Walk(workflow, report)
    walk.all()
    concurrency = _concurrency(workflow, report)
    images = _images(workflow.ground, report)
    if not report.problems:
        # Where a graph is wrong, its order is not worth reporting.
        walk.check_locals()
        _check_volumes(workflow, report)
    return Survey(workflow, walk.graphs, walk.nodes, images, concurrency, walk.presets)


class _Walk:
    """Looks at every graph of a bake, and evaluates what can be evaluated."""

    def __init__(self, workflow: BatchWorkflow, report: Report) -> None:
        self.workflow = workflow
        self.report = report
        self.nodes: dict[str, Node] = {}
        self.graphs: Graphs = {}
        self.presets: dict[str, Position] = {}
        # What lies below a group of calls is looked at for its problems, and not shown.
        self.hidden = 0
        self.count = 0
        # Local actions, and what they wait for that is remote.
        self.late: list[tuple[Node, _Remote]] = []

    def all(self) -> None:
        """Start at the outermost graph."""
        self._graph(self.workflow.build_root(self.report), None)

    def check_locals(self) -> None:
        """Local actions run before all else: they cannot wait for a task on the platform."""
        for node, remote in self.late:
            self.report.add(
                f"Local action '{join_id(node.id)}' depends on remote task '{join_id(remote.id)}'",
                remote.at or node.at,
                "Local actions all run before the tasks on the platform: let it need none of "
                "those, `needs: []` for example.",
            )

    def _graph(self, graph: Graph, remote: _Remote | None) -> FullId | None:
        """Look at a graph below a node that waits for a remote task; return its first own one."""
        self.count += len(graph.nodes)
        if self.count > MOST_NODES:
            self.report.add(f"The bake has more than {MOST_NODES} tasks", None)
            return None
        if not self.hidden:
            self.graphs[join_id(graph.prefix)] = _wire(graph)
            self.nodes.update((join_id(one), node) for one, node in graph.nodes.items())
        behind = _Behind(graph, remote)
        own: FullId | None = None
        for full_id in in_order({node.id: node.needs for node in graph.nodes.values()}):
            node = graph.nodes[full_id]
            found = self._node(node, behind.of(node))
            if found is not None:
                behind.remote[node.id] = found
                own = own or found
        return own

    def _node(self, node: Node, remote: _Remote | None) -> FullId | None:
        """Look at a node; return the first remote task that it is, or that is below it."""
        if self.count > MOST_NODES:
            return None
        evaluation = self.workflow.examine(node, self.report)
        assert isinstance(node.source, Place)
        match node.source.kind:
            case NodeKind.TASK | NodeKind.STATEFUL:
                self._job(evaluation.task(None), node)
                return node.id
            case NodeKind.POST:
                self._job(evaluation.task(UNKNOWN), node)
                return node.id
            case NodeKind.LOCAL:
                evaluation.enable()
                evaluation.local()
                is_group = node.kind is NodeKind.GROUP and not node.source.element.open
                if self.hidden or is_group:
                    whose = "that calls a local action" if self.hidden else "of a local action"
                    self.report.add(f"The matrix {whose} cannot be decided by outputs", node.at)
                if remote is not None:
                    self.late.append((node, remote))
            case NodeKind.CALL:
                evaluation.enable()
                if node.source.element.is_unread:
                    return None
                before = len(self.report.problems)
                frame = evaluation.opened()
                if len(self.report.problems) > before:
                    return None
                hides = node.kind is NodeKind.GROUP and not node.source.element.open
                self.hidden += hides
                graph = self.workflow.build(frame, self.report)
                # Nothing inside can change what a call waits for.
                outer = remote and remote._replace(at=remote.at or node.at)
                found = self._graph(graph, outer)
                self.workflow.examine_outputs(node, {}, self.report)
                self.hidden -= hides
                return found
        return None

    def _job(self, job: ResolvedTask, node: Node) -> None:
        if job.preset is None or job.preset in self.presets:
            return
        assert isinstance(node.source, Place)
        task = node.source.element.task
        given = task.preset if isinstance(task, tree.Task) else None
        self.presets[job.preset] = given.at if given is not None else task.at


class _Remote(NamedTuple):
    """A task on the platform that something waits for, and where a file says so."""

    id: FullId
    at: Position | None


class _Behind:
    """Which remote tasks come before the nodes of a graph."""

    def __init__(self, graph: Graph, around: _Remote | None) -> None:
        # The first that each node is, or that is below it.
        self.remote: dict[FullId, FullId] = {}
        self._around = around
        self._graph = graph
        self._known: dict[int, _Remote | None] = {}
        self._behind: dict[FullId, _Remote | None] = {}

    def of(self, node: Node) -> _Remote | None:
        """The first remote task that a node waits for, itself or by others."""
        mark = id(node.needs)
        if mark not in self._known:
            self._known[mark] = self._around or self._first(node)
        self._behind[node.id] = self._known[mark]
        return self._known[mark]

    def _first(self, node: Node) -> _Remote | None:
        for need in node.needs:
            own = self.remote.get(need)
            before = self._behind.get(need)
            if own is not None or before is not None:
                at = needs_at(node, self._graph.nodes[need])
                if own is not None:
                    return _Remote(own, at)
                assert before is not None
                return before._replace(at=at or before.at)
        return None


def _wire(graph: Graph) -> dict[str, list[str]]:
    lists: dict[int, list[str]] = {}
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        mark = id(node.needs)
        if mark not in lists:
            lists[mark] = [join_id(need) for need in node.needs]
        found[join_id(node.id)] = lists[mark]
    return found


def _images(ground: Ground, report: Report) -> tuple[PlannedImage, ...]:
    """The images with contexts. One reference has one way to be built."""
    found: dict[str, PlannedImage] = {}
    where: dict[str, tree.Image] = {}
    for built in ground.images.values():
        record = built.record
        if record.context is None or record.dockerfile_rel is None:
            continue
        yaml_id = join_id(built.yaml_id)
        planned = PlannedImage(
            record.ref,
            record.context,
            str(record.dockerfile_rel),
            (yaml_id,),
            record.force_rebuild,
        )
        first = found.get(record.ref)
        if first is None:
            found[record.ref], where[record.ref] = planned, built.definition
            continue
        if (first.context, first.dockerfile_rel) != (planned.context, planned.dockerfile_rel):
            at = _ref_at(where[record.ref])
            report.add(
                f"Image {record.ref} is defined twice, with different contexts or dockerfiles",
                _ref_at(built.definition),
                f"The other definition is at line {at.line} of {at.source.name}.",
            )
            continue
        found[record.ref] = PlannedImage(
            first.ref,
            first.context,
            first.dockerfile_rel,
            tuple(dict.fromkeys((*first.yaml_defs, yaml_id))),
            first.force_rebuild or planned.force_rebuild,
        )
    return tuple(found.values())


def _ref_at(image: tree.Image) -> Position:
    return image.ref.at if image.ref is not None else image.at


def _check_volumes(workflow: BatchWorkflow, report: Report) -> None:
    """A local folder that only evaluation shows to be read: of the project's volumes."""
    for key in workflow.volumes.read - workflow.file.volumes.keys():
        if workflow.volumes[key].local is not None and workflow.project is not None:
            volume = workflow.project.volumes[key]
            report.add(no_upload(key), volume.key_at.get("local", volume.at), upload_before(key))


def _concurrency(workflow: BatchWorkflow, report: Report) -> Concurrency | None:
    concurrency = workflow.file.concurrency
    if concurrency is None:
        return None
    values = workflow.early_values(report)
    group = values.text(concurrency.group)
    cancel = bool(values.flag(concurrency.cancel_running))
    return Concurrency(group=group, cancel_running=cancel) if group else None
