"""A new project from its first command to its results, with neuro-flow and a real platform."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import commands
from tests.cli.platform import Home

JOBS = ["filebrowser", "jupyter", "multitrain", "remote_debug", "tensorboard", "train"]


class Project:
    """A project of the flow template; ``flow`` is neuro-flow in its folder."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder

    def flow(self, *words: str) -> subprocess.CompletedProcess[str]:
        return commands.run(
            "neuro.flow",
            words,
            environment=self.home.environment(),
            folder=self.folder,
            seconds=90,
        )

    def ok(self, *words: str) -> str:
        done = self.flow(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def project(platform: Home) -> Iterator[Project]:
    platform.ok("project", "init", "Neuro Tutorial", "--no-input")
    made = Project(platform, platform.work_dir / "neuro-tutorial")
    made.ok("mkvolumes")
    made.ok("upload", "ALL")
    yield made
    made.ok("kill", "ALL")


def results(project: Project, folder: str = "") -> dict[str, object]:
    project.ok("download", "results")
    text = (project.folder / "results" / folder / "metrics.json").read_text()
    content: dict[str, object] = json.loads(text)
    return content


def test_train_on_the_platform_and_get_the_results(project: Project) -> None:
    out = project.ok("run", "train")

    assert "epoch 100/100" in out
    assert results(project)["epochs"] == 100
    assert "succeeded" in project.ok("status", "train")


def test_its_image_is_built(project: Project) -> None:
    kept = (project.folder / "requirements.txt").read_text()
    # Nothing to fetch: what the machine has is enough here.
    (project.folder / "requirements.txt").write_text("# none\n")

    out = project.ok("build", "myimage")
    (project.folder / "requirements.txt").write_text("# none yet\n")
    again = project.ok("build", "-F", "myimage")

    (project.folder / "requirements.txt").write_text(kept)
    assert "RUN python3 -m pip install --no-cache-dir" in out
    assert out.splitlines()[-1].startswith("image://default/")
    assert "image:neuro_tutorial" in project.home.ok("image", "ls").split()
    # System packages are not installed again for a change of Python's.
    assert re.search(r"(#\d+) \S+ RUN packages=.*\n\1 CACHED\n", again), again
    assert re.search(r"(#\d+) \S+ RUN python3 -m pip .*\n(\1 .*\n)*\1 DONE", again), again


def test_the_code_is_sent_before_each_training(project: Project) -> None:
    code = project.folder / "modules" / "train.py"
    code.write_text(code.read_text().replace("flowers to train on", "flowers, of my own code"))

    assert "flowers, of my own code" in project.ok("run", "train")


def test_trainings_side_by_side_have_results_of_their_own(project: Project) -> None:
    project.ok("run", "multitrain", "--suffix", "slow", "-p", "lr", "0.05", "-p", "epochs", "7")
    project.ok("run", "multitrain", "--suffix", "fast", "-p", "lr", "2.0")
    for suffix in ("slow", "fast"):
        assert "model.npz" in project.ok("logs", "multitrain", suffix)

    assert results(project, "slow")["lr"] == 0.05
    assert results(project, "slow")["epochs"] == 7
    assert results(project, "fast")["lr"] == 2.0


def test_every_job_can_be_run(project: Project) -> None:
    listed = project.ok("ps")

    for job in JOBS:
        assert job in listed
        line = project.ok("run", job, "--dry-run")
        assert "python:3.11" in line
        assert "storage:neuro_tutorial" in line


def test_the_checker_finds_no_mistake(project: Project) -> None:
    project.ok("check")


def test_clean_all_leaves_nothing_of_it_on_the_platform(project: Project) -> None:
    project.ok("clean", "ALL")

    assert "neuro_tutorial" not in project.home.ok("ls", "storage:")
