"""A project: what the flow files of a workspace say, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuro.domain.problems import Problem
from neuro.flow.evaluate import names
from neuro.flow.problems import Report
from neuro.flow.workspace import flow_file

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.evaluate.jobs import LiveWorkflow
    from neuro.flow.syntax.tree import ProjectFile
    from neuro.flow.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Project:
    """The contents of `project.yml`, or the defaults where there is none."""

    id: str
    file: ProjectFile | None

    @property
    def owner(self) -> str | None:
        if self.file is None:
            return None
        from neuro.flow.evaluate.sections import constant_text

        return constant_text(self.file.owner)


def read_project_of(workspace: Workspace, report: Report) -> Project:
    """Read the project file, if there is one."""
    # A project file beside the flow files' folder is the older place of it.
    path = flow_file(workspace.config_dir, "project") or flow_file(workspace.root, "project")
    file: ProjectFile | None = None
    if path is not None:
        # Most projects have none: their commands need not read YAML to know how they are called.
        from neuro.flow.evaluate.sections import constant_text
        from neuro.flow.syntax.reader import load_source, read_project

        source = load_source(path, report)
        file = read_project(source, report) if source is not None else None
        project_id = constant_text(file.id) if file is not None else None
        # Without an id the reader has told what is wrong with it.
        return Project(project_id or "project", file)
    try:
        return Project(names.default_project_id(workspace.root), None)
    except ValueError as error:
        report.add(str(error), None)
        return Project("project", None)


def load(
    workspace: Workspace,
    *,
    environment: Environment,
    with_jobs: bool = True,
    report: Report | None = None,
) -> LiveWorkflow:
    """Read the live workflow. Raises FlowError with every problem of its files.

    Who needs no jobs of it is content with a project file that says what there is besides.
    ``report`` is given the notes on them.
    """
    from neuro.flow.evaluate.doubts import doubt_hashes
    from neuro.flow.evaluate.jobs import LiveWorkflow
    from neuro.flow.syntax.reader import load_source, read_live
    from neuro.flow.syntax.tree import LiveFile

    report = report or Report()
    project = read_project_of(workspace, report)
    live = None
    path = flow_file(workspace.config_dir, "live")
    if path is not None:
        source = load_source(path, report)
        live = read_live(source, report) if source is not None else None
    elif project.file is not None and not with_jobs:
        live = LiveFile(at=project.file.at)
    elif with_jobs or not report.problems:
        report.add(
            f"Config file for flow 'live' not found in {workspace.config_dir} folder",
            None,
            "Jobs are described in live.yml; `neuro-flow init` makes a project that has one."
            if with_jobs
            else "Volumes and images are described there, or in project.yml.",
        )
    report.raise_if_any()
    assert live is not None  # no problem, so there is a file
    workflow = LiveWorkflow(
        root=workspace.root,
        project_id=project.id,
        live=live,
        project=project.file,
        environment=environment,
        report=report,
    )
    report.raise_if_any()
    doubt_hashes(live, workspace.root, report, batch=False)
    return workflow


def check(
    workspace: Workspace, *, environment: Environment, report: Report | None = None
) -> list[Problem]:
    """Find the problems of every flow file, without running anything they ask for.

    ``report`` is given the notes on them.
    """
    from neuro.flow.evaluate.check import check_workspace

    report = report or Report()
    project = read_project_of(workspace, report)
    return check_workspace(workspace, project.id, project.file, environment, report)
