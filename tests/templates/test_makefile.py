"""Every command of the Makefile, against a real platform."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import Home, Terminal
from tests.templates import tools

# A training that goes on until it is stopped.
FOREVER = "RUN_OPTIONS=--detach", "TRAINING_COMMAND=echo started; sleep 1000"


class Project:
    """A project made of the template, in its owner's shell."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.environment = home.environment(
            BROWSER="true", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        )
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of what runs the tests
            self.environment.pop(name, None)

    def make(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ok(self, *words: str, timeout: float = 60) -> str:
        done = self.make(*words, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listing(self, folder: str = "") -> set[str]:
        """The names in a folder of the project on the platform."""
        return set(self.home.ok("ls", f"storage:digits{folder}").split())

    def is_over(self, job: str) -> bool:
        """Whether a job that was told to stop does: its log's end is its end."""
        self.home.ok("logs", job)
        return job not in self.home.ok("ps")


@pytest.fixture(scope="module")
def made(platform: Home) -> Project:
    platform.ok("project", "init", "Digits", "--template", "makefile", "--no-input")
    project = Project(platform, platform.work_dir / "digits")
    project.ok("upload")
    return project


@pytest.fixture
def project(made: Project) -> Iterator[Project]:
    """The project, whose jobs end with the test."""
    yield made
    made.make("kill")


def test_without_a_goal_it_lists_the_commands_of_the_readme(project: Project) -> None:
    listed = re.findall(r"^  (\w+) +\S", project.ok(), re.MULTILINE)
    described = re.findall(r"^\| `(\w+)` \| (?:remote|local)", _readme(project), re.MULTILINE)

    assert set(listed) == {"help", *described}


def _readme(project: Project) -> str:
    return (project.folder / "README.md").read_text()


def test_login(project: Project) -> None:
    assert "Logged" in project.ok("login")


def test_upload_and_clean(project: Project) -> None:
    project.ok("upload")
    assert {"train.py"} == project.listing("/code")
    assert {"apt.txt", "pip.txt"} == project.listing("/requirements")
    assert {"explore.ipynb"} == project.listing("/notebooks")
    assert "iris.csv" in project.listing("/data")

    project.ok("clean")
    assert project.listing() == {"results"}

    project.ok("clean")  # What is not there is no error.
    project.ok("upload_code", "upload_data", "upload_notebooks")
    project.ok("clean_code")
    assert project.listing() == {"data", "notebooks", "results"}
    project.ok("upload")


@pytest.mark.parametrize("goal", ["clean_data", "clean_notebooks"])
def test_one_folder_is_cleaned(project: Project, goal: str) -> None:
    project.ok("upload")
    project.ok(goal)

    assert goal.removeprefix("clean_") not in project.listing()
    project.ok("upload")


def test_run_training(project: Project) -> None:
    out = project.ok("run_training")

    assert "epoch 100/100" in out
    metrics = json.loads(_downloaded(project, "results/metrics.json"))
    assert metrics["train_accuracy"] > 0.9


def _downloaded(project: Project, path: str) -> bytes:
    target = project.folder / "downloaded"
    project.home.ok("cp", f"storage:digits/{path}", str(target))
    content = target.read_bytes()
    target.unlink()
    return content


def test_ps_connect_and_kill_training(project: Project) -> None:
    project.ok("run_training", *FOREVER)
    assert "training-digits" in project.ok("ps")

    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["make", "connect_training"],
        cwd=project.folder,
        env=project.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    with Terminal(shell, ours) as terminal:
        terminal.press("echo $((40 + 2)) $(ls /project | tr '\\n' +)\n")
        terminal.until("42 code+data+notebooks+requirements+results+")
        terminal.press("exit\n")
        assert terminal.end() == 0

    project.ok("kill_training")
    assert project.is_over("training-digits")


def test_kill_stops_what_runs_and_forgives_what_does_not(project: Project) -> None:
    project.ok("run_training", *FOREVER)

    done = project.make("kill")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Stopped training-digits" in done.stdout
    assert project.is_over("training-digits")
    again = project.make("kill")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_package_that_is_lacking_is_told(project: Project) -> None:
    pip = project.folder / "requirements" / "pip.txt"
    before = pip.read_text()
    try:
        pip.write_text("./no-such-package\n")
        project.ok("upload_code")
        done = project.make("run_training")
    finally:
        pip.write_text(before)
        project.ok("upload_code")

    assert done.returncode != 0
    assert "no-such-package" in done.stdout + done.stderr
    assert "epoch" not in done.stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "port", "page"),
    [
        ("jupyter", 8888, "/api/contents/notebooks/explore.ipynb"),
        ("tensorboard", 6006, "/"),
        ("filebrowser", 8095, "/"),
    ],
)
def test_pages(project: Project, name: str, port: int, page: str) -> None:
    out = project.ok(f"run_{name}", timeout=90)
    assert "Browsing job, please open: http" in out

    with project.home.start("logs", f"{name}-digits") as output:
        # Each says so when it listens; the job installs the program before.
        said = output.until(f":{port}/", patience=180)
        if name == "jupyter":
            said += output.until("\n")
            page += "?token=" + re.findall(r"token=(\w+)\s", said)[0]
    local = free_port()
    with project.home.start("port-forward", f"{name}-digits", f"{local}:{port}") as forward:
        forward.until(f"localhost:{local} will be forwarded")
        with urllib.request.urlopen(f"http://localhost:{local}{page}") as answer:
            assert answer.status == 200

    project.ok(f"kill_{name}")
    assert project.is_over(f"{name}-digits")


@pytest.mark.clients
@pytest.mark.slow
def test_lint(project: Project) -> None:
    python = f"PYTHON={tools.install() / 'python'}"
    assert "no issues found" in project.ok("lint", python)

    bad = project.folder / "code" / "bad.py"
    bad.write_text("import os\n")
    try:
        done = project.make("lint", python)
    finally:
        bad.unlink()
    assert done.returncode != 0
    assert "F401" in done.stdout
