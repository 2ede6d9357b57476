"""A project: the folder that has a `.neuro` with flow files, found, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.evaluate.jobs import LiveWorkflow
    from neuro.flow.syntax.problems import Problem

CONFIG_DIR = ".neuro"


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


def load(workspace: Workspace, *, environment: Environment) -> LiveWorkflow:
    """Read the live workflow. Raises FlowError with every problem of its files."""
    raise NotImplementedError


def check(workspace: Workspace, *, environment: Environment) -> list[Problem]:
    """Find the problems of every flow file, without running anything they ask for."""
    raise NotImplementedError
