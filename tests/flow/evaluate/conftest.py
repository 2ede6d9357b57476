"""A workspace on the disk, and effects that are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

from neuro.flow.evaluate.environment import Environment
from neuro.flow.evaluate.jobs import LiveWorkflow, ResolvedJob
from neuro.flow.project import check, load
from neuro.flow.workspace import Workspace, find_workspace


@dataclass
class Recorder:
    """Effects that happen nowhere but here."""

    uploads: list[str] = field(default_factory=list)
    inspected: list[tuple[str, ...]] = field(default_factory=list)
    job: object = None

    def upload(self, volume):
        self.uploads.append(volume.id)

    def inspect_job(self, tags):
        self.inspected.append(tags)
        return self.job


@dataclass
class Place:
    """A workspace in a temporary folder."""

    root: Path
    cache: Path

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    @property
    def environment(self) -> Environment:
        return Environment(user="user", cwd=self.root, cache_dir=self.cache)

    @property
    def workspace(self) -> Workspace:
        return find_workspace(self.root)

    def load(self) -> LiveWorkflow:
        return load(self.workspace, environment=self.environment)

    def live(self, text: str) -> LiveWorkflow:
        self.write(".neuro/live.yml", "kind: live\n" + dedent(text))
        return self.load()

    def resolve(self, text: str, job: str = "a", effects=None, **options) -> ResolvedJob:
        return self.live(text).resolve(job, effects=effects or Recorder(), **options)

    def check(self):
        return check(self.workspace, environment=self.environment)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    root = tmp_path / "my_ws"
    (root / ".neuro").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("NEURO_FLOW_GITHUB", raising=False)
    return Place(root, tmp_path / "cache")


@pytest.fixture
def effects() -> Recorder:
    return Recorder()
