"""A project: the folder that has a `.neuro` with flow files, found, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.flow.evaluate import names
from neuro.flow.syntax.problems import Problem, Report

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.evaluate.jobs import LiveWorkflow
    from neuro.flow.syntax.tree import ProjectFile

CONFIG_DIR = ".neuro"
SUFFIXES = (".yml", ".yaml")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A project's folder, and the one inside that holds its flow files."""

    root: Path
    config_dir: Path


def find_workspace(start: Path, config: Path | None = None) -> Workspace:
    """Climb from a folder to the nearest one that has a `.neuro`.

    Raises ValueError where there is none. The filesystem's root is never looked at.
    """
    if config is not None:
        if not config.exists():
            raise ValueError(f"{config} does not exist.")
        if not config.is_dir():
            raise ValueError(f"{config} should be a directory.")
        start = config
    start = start.absolute()
    for folder in (start, *start.parents):
        if folder.parent != folder and (folder / CONFIG_DIR).is_dir():
            return Workspace(folder, folder / CONFIG_DIR)
    raise ValueError(
        f"No {CONFIG_DIR} folder in {start} or above it. "
        "Go to a project's folder, or start one with `neuro-flow init`."
    )


def flow_file(folder: Path, name: str) -> Path | None:
    """Return `NAME.yml`, or else `NAME.yaml`, where there is one."""
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.exists():
            return path
    return None


@dataclass(frozen=True, slots=True)
class Project:
    """What `project.yml` says, or what is taken where there is none."""

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

    return check_workspace(workspace, environment, report or Report())
