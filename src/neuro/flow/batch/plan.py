"""The plan of a bake: all that is known of it before it starts, with every problem of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from neuro.domain.bakes import CatchUp, Concurrency, GitInfo, Graphs, Overlap
from neuro.flow.evaluate.actions import Actions
from neuro.flow.evaluate.batch.facts import NO_BAKE, Facts, collect_git
from neuro.flow.evaluate.batch.sources import FLOW, PROJECT, DiskFiles
from neuro.flow.evaluate.batch.survey import PlannedImage, survey
from neuro.flow.evaluate.batch.workflow import BatchWorkflow, read_files
from neuro.flow.evaluate.doubts import doubt_hashes
from neuro.flow.evaluate.sections import constant_text
from neuro.flow.model import Node
from neuro.flow.problems import FlowError, Report
from neuro.flow.syntax import tree
from neuro.flow.workspace import SUFFIXES

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.workspace import Workspace


class PlannedFile(NamedTuple):
    """A flow file of the bake. `role` is `flow`, `project` or an action's reference."""

    role: str
    filename: str
    text: str


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """When the server starts the batch by itself."""

    cron: str
    timezone: str
    catch_up: CatchUp
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class Plan:
    """A bake before it starts.

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
    files = DiskFiles(workspace, batch_name, Actions(workspace.root, environment.cache_dir))
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
    if read is None:
        raise FlowError(report.sorted())
    doubt_hashes(read.file, workspace.root, report, batch=True)
    found = survey(read, files, facts, params, report)
    problems = report.first_of_each_place()
    if found is None or problems:
        raise FlowError(problems)
    workflow = found.workflow
    return Plan(
        workflow=workflow,
        graphs=found.graphs,
        nodes=found.nodes,
        images=found.images,
        hashes=facts.hashes,
        files=_files(files),
        params={name: str(value) for name, value in workflow.params.items()},
        git=git,
        life_span=workflow.life_span,
        concurrency=found.concurrency,
        schedule=_schedule(workflow.file.schedule),
        presets=found.presets,
    )


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _files(files: DiskFiles) -> tuple[PlannedFile, ...]:
    first = [role for role in (FLOW, PROJECT) if role in files.texts]
    rest = sorted(role for role in files.texts if role not in first)
    return tuple(
        PlannedFile(role, str(files.texts[role][0]), files.texts[role][1].text)
        for role in (*first, *rest)
    )


def _schedule(schedule: tree.Schedule | None) -> PlannedSchedule | None:
    if schedule is None:
        return None
    return PlannedSchedule(
        cron=constant_text(schedule.cron) or "",
        timezone=constant_text(schedule.timezone) or "UTC",
        catch_up=CatchUp(schedule.catch_up or CatchUp.LAST),
        overlap=Overlap(schedule.overlap or Overlap.SKIP),
    )
