"""The plan of a bake: all that is known of it before it starts, with every problem of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuro.domain.bakes import CatchUp, Concurrency, GitInfo, Graphs, Overlap
from neuro.flow.batch.model import FullId, Graph, Node, NodeKind, ResolvedTask, join_id
from neuro.flow.evaluate.batch.contexts import UNKNOWN
from neuro.flow.evaluate.batch.facts import Facts, collect_git
from neuro.flow.evaluate.batch.ground import Ground, Place
from neuro.flow.evaluate.batch.sources import FLOW, PROJECT, DiskFiles
from neuro.flow.evaluate.batch.workflow import BatchWorkflow, read_files
from neuro.flow.evaluate.check_tasks import TaskCheck
from neuro.flow.evaluate.doubts import doubt_hashes
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.expressions.values import URI
from neuro.flow.project import SUFFIXES
from neuro.flow.syntax import tree
from neuro.flow.syntax.problems import FlowError, Report

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.project import Workspace
    from neuro.flow.syntax.source import Position

# The bake's id where there is none yet.
NO_BAKE = "bake-00000000-0000-0000-0000-000000000000"
MOST_NODES = 100_000


class PlannedFile(NamedTuple):
    """A flow file of the bake. `role` is `flow`, `project` or an action's reference."""

    role: str
    filename: str
    text: str


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image with a context to build it from; `yaml_defs` are the ids of its definitions."""

    ref: str
    context: Path | URI
    dockerfile_rel: str
    yaml_defs: tuple[str, ...]
    force_rebuild: bool


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """When the server starts the batch by itself."""

    cron: str
    timezone: str
    catch_up: CatchUp
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a bake before it starts.

    `nodes` are those of every graph that is known, by their joined ids. `graphs` has them as the
    wire does: a GROUP is a placeholder for rows that outputs decide.
    """

    workflow: BatchWorkflow
    graphs: Graphs
    nodes: Mapping[str, Node]
    images: tuple[PlannedImage, ...]
    hashes: Mapping[str, str]
    files: tuple[PlannedFile, ...]
    params: Mapping[str, str]
    git: GitInfo | None
    life_span: float | None
    concurrency: Concurrency | None
    schedule: PlannedSchedule | None
    # Where each preset is asked for first.
    presets: Mapping[str, Position]


def make_plan(
    workspace: Workspace,
    batch_name: str,
    params: Mapping[str, str],
    environment: Environment,
    report: Report | None = None,
) -> Plan:
    """Read a batch from the disk and plan it. Raises FlowError with every problem, sorted.

    ``report`` is given the notes on its files.
    """
    report = report or Report()
    batch_name = _without_suffix(batch_name)
    files = DiskFiles(workspace, batch_name, environment.cache_dir)
    git = collect_git(environment.cwd)
    facts = Facts(
        bake_id=NO_BAKE,
        batch=batch_name,
        workspace=workspace.root,
        user=environment.user,
        git=git,
        collecting=True,
    )
    read = read_files(files, report)
    readable = not report.problems
    if read is None:
        raise FlowError(report.sorted())
    doubt_hashes(read.file, workspace.root, report, batch=True)
    TaskCheck(files.actions, report).batch(batch_name, read.file, read.project)
    workflow = BatchWorkflow(read, files, facts, params, report)
    if not readable:
        # What is missing from the tree would be told again by all that is made of it.
        raise FlowError(report.first_of_each_place())
    survey = _Survey(workflow, report)
    survey.all()
    concurrency = _concurrency(workflow, report)
    images = _images(workflow.ground, report)
    if not report.problems:
        # As far as that can be seen without evaluating anything, it has been told.
        survey.check_locals()
        _check_volumes(workflow, report)
    problems = report.first_of_each_place()
    if problems:
        raise FlowError(problems)
    return Plan(
        workflow=workflow,
        graphs=survey.graphs,
        nodes=survey.nodes,
        images=images,
        hashes=facts.hashes,
        files=_files(files),
        params={name: str(value) for name, value in workflow.params.items()},
        git=git,
        life_span=workflow.life_span,
        concurrency=concurrency,
        schedule=_schedule(workflow.file.schedule),
        presets=survey.presets,
    )


class _Survey:
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
        # Local actions, and the remote tasks that they wait for.
        self.late: list[tuple[Node, FullId]] = []

    def all(self) -> None:
        """Start at the outermost graph."""
        self._graph(self.workflow.build_root(self.report), None)

    def check_locals(self) -> None:
        """Local actions run before all else: they cannot wait for a task on the platform."""
        for node, remote in self.late:
            self.report.add(
                f"Local action '{join_id(node.id)}' depends on remote task '{join_id(remote)}'",
                node.at,
                "Local actions all run before the tasks on the platform: let it need none of "
                "those, `needs: []` for example.",
            )

    def _graph(self, graph: Graph, remote: FullId | None) -> FullId | None:
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
        for node in _in_order(graph):
            found = self._node(node, behind.of(node))
            if found is not None:
                behind.remote[node.id] = found
                own = own or found
        return own

    def _node(self, node: Node, remote: FullId | None) -> FullId | None:
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
                if self.hidden or node.kind is NodeKind.GROUP:
                    whose = "that calls a local action" if self.hidden else "of a local action"
                    self.report.add(f"The matrix {whose} cannot be decided by outputs", node.at)
                if remote is not None:
                    self.late.append((node, remote))
            case NodeKind.CALL:
                evaluation.enable()
                before = len(self.report.problems)
                frame = evaluation.opened()
                if len(self.report.problems) > before:
                    return None
                hides = node.kind is NodeKind.GROUP
                self.hidden += hides
                graph = self.workflow.build(frame, self.report)
                found = self._graph(graph, remote)
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


class _Behind:
    """Which remote tasks come before the nodes of a graph."""

    def __init__(self, graph: Graph, around: FullId | None) -> None:
        self.remote: dict[FullId, FullId] = {}
        self._around = around
        self._known: dict[int, FullId | None] = {}
        self._graph = graph
        self._behind: dict[FullId, FullId | None] = {}

    def of(self, node: Node) -> FullId | None:
        """The first remote task that a node waits for, itself or by others."""
        mark = id(node.needs)
        if mark not in self._known:
            found = self._around
            for need in node.needs:
                found = found or self.remote.get(need) or self._behind.get(need)
            self._known[mark] = found
        self._behind[node.id] = self._known[mark]
        return self._known[mark]


def _in_order(graph: Graph) -> Iterable[Node]:
    """Nodes after those that they wait for; those in a circle come last."""
    waiting: dict[int, int] = {}
    shared: dict[int, list[Node]] = {}
    awaited: dict[FullId, list[int]] = {}
    for node in graph.nodes.values():
        mark = id(node.needs)
        if mark not in shared:
            shared[mark] = []
            waiting[mark] = len(node.needs)
            for need in node.needs:
                awaited.setdefault(need, []).append(mark)
        shared[mark].append(node)
    ready = [node for mark, nodes in shared.items() if not waiting[mark] for node in nodes]
    seen = 0
    while seen < len(ready):
        node = ready[seen]
        seen += 1
        for mark in awaited.get(node.id, ()):
            waiting[mark] -= 1
            if not waiting[mark]:
                ready += shared[mark]
    if len(ready) < len(graph.nodes):
        known = {node.id for node in ready}
        ready += [node for node in graph.nodes.values() if node.id not in known]
    return ready


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _wire(graph: Graph) -> dict[str, list[str]]:
    lists: dict[int, list[str]] = {}
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        mark = id(node.needs)
        if mark not in lists:
            lists[mark] = [join_id(need) for need in node.needs]
        found[join_id(node.id)] = lists[mark]
    return found


def _files(files: DiskFiles) -> tuple[PlannedFile, ...]:
    first = [role for role in (FLOW, PROJECT) if role in files.texts]
    rest = sorted(role for role in files.texts if role not in first)
    return tuple(
        PlannedFile(role, str(files.texts[role][0]), files.texts[role][1].text)
        for role in (*first, *rest)
    )


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
            at = where[record.ref].at
            report.add(
                f"The image {record.ref} is defined with different contexts or dockerfiles",
                built.definition.at,
                f'The other definition is in "{at.source.name}", line {at.line}.',
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


def _check_volumes(workflow: BatchWorkflow, report: Report) -> None:
    """A local folder is uploaded before, by hand: a bake does not need this machine."""
    for key, record in workflow.volumes.items():
        own = workflow.file.volumes.get(key)
        if record.local is None or (own is None and key not in workflow.volumes.read):
            continue
        volume = own
        if volume is None and workflow.project is not None:
            volume = workflow.project.volumes[key]
        assert volume is not None  # it is of one of the two files
        report.add(
            f"Volumes sync is not supported in a batch: volume '{key}' has a local folder",
            volume.key_at.get("local", volume.at),
            f"Declare '{key}' in the batch without `local`, and upload it before the bake with "
            f"`neuro-flow upload {key}`.",
        )


def _concurrency(workflow: BatchWorkflow, report: Report) -> Concurrency | None:
    concurrency = workflow.file.concurrency
    if concurrency is None:
        return None
    values = workflow.early_values(report)
    group = values.text(concurrency.group)
    cancel = bool(values.flag(concurrency.cancel_running))
    return Concurrency(group=group, cancel_running=cancel) if group else None


def _schedule(schedule: tree.Schedule | None) -> PlannedSchedule | None:
    if schedule is None:
        return None
    return PlannedSchedule(
        cron=constant_text(schedule.cron) or "",
        timezone=constant_text(schedule.timezone) or "UTC",
        catch_up=CatchUp(schedule.catch_up or CatchUp.LAST),
        overlap=Overlap(schedule.overlap or Overlap.SKIP),
    )
