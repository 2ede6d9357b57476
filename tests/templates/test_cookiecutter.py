"""The templates are cookiecutter's: the real program makes the same of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from neuro.cli.project.answers import TEMPLATES, complaint
from tests.cli.platform import Home
from tests.templates import tools
from tests.templates.test_project_init import content_of

pytestmark = [pytest.mark.clients, pytest.mark.slow]


@pytest.fixture(scope="module")
def bin_folder() -> Path:
    return tools.install()


def cookiecutter(
    bin_folder: Path, template: str, place: Path, **answers: str
) -> subprocess.CompletedProcess[str]:
    given = [f"{key}={value}" for key, value in answers.items()]
    return subprocess.run(
        [bin_folder / "cookiecutter", "--no-input", "-o", place, TEMPLATES / template, *given],
        env={"HOME": str(place), "PATH": f"{bin_folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        ("flow", {"project_name": "Neuro Tutorial"}),
        ("flow", {"project_name": 'My "first" {net}', "project_slug": "n1", "code_directory": "x"}),
        ("makefile", {"project_name": "Digits_of mine"}),
    ],
)
def test_both_programs_make_the_same(
    home: Home, bin_folder: Path, tmp_path: Path, template: str, answers: dict[str, str]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()

    done = cookiecutter(bin_folder, template, theirs, **answers)
    given = [f"{key}={value}" for key, value in answers.items()]
    home.ok(
        "project", "init", "--template", template, "--no-input", "--output-dir", str(ours), *given
    )

    assert done.returncode == 0, done.stderr
    made = {k: v for k, v in content_of(theirs).items() if not k.startswith(".cookie")}
    assert made == content_of(ours)


@pytest.mark.parametrize(
    ("template", "key", "value"),
    [
        ("flow", "project_slug", "No"),
        ("flow", "project_slug", "a--b"),
        ("flow", "project_slug", "2nd"),
        ("flow", "code_directory", "class"),
        ("flow", "code_directory", "Data"),
        ("flow", "code_directory", "a-b"),
        ("makefile", "project_slug", "a" * 29),
    ],
)
def test_both_programs_refuse_the_same(
    bin_folder: Path, tmp_path: Path, template: str, key: str, value: str
) -> None:
    done = cookiecutter(bin_folder, template, tmp_path, **{key: value})

    assert done.returncode != 0
    assert f"{key} '{value}'" in done.stderr
    assert complaint(template, key, value) is not None
