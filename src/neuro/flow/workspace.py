"""A workspace: the folder that has a `.neuro` with flow files, and how it is found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
        found = folder / CONFIG_DIR
        if folder.parent != folder and found.is_dir() and not _is_persons_own(found):
            return Workspace(folder, found)
    raise ValueError(
        f"No {CONFIG_DIR} folder in {start} or above it. "
        "Go to a project's folder, or start one with `neuro-flow init`."
    )


def _is_persons_own(config: Path) -> bool:
    """Whether it is where `neuro` keeps the person's login, and has no file of a project."""
    return config.parent == Path.home() and not any(
        path.suffix in SUFFIXES for path in config.iterdir()
    )


def flow_file(folder: Path, name: str) -> Path | None:
    """Return `NAME.yml`, or else `NAME.yaml`, where there is one."""
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.exists():
            return path
    return None
