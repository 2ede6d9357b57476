from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from neuro.cli.project.answers import TEMPLATES, complaint, slug_of
from neuro.cli.project.render import make_project, substitute
from neuro.cli.user_config import load
from tests import commands
from tests.cli.platform import PATIENCE, Home
from tests.test_documentation import resolve

# HELP.md says so of it.
NOT_EVERYWHERE = ("share",)

FLOW = {
    ".neuro/live.yml",
    "config/README.md",
    "data/.gitkeep",
    "data/iris.csv",
    "notebooks/explore.ipynb",
    "modules/train.py",
    "results/.gitkeep",
    ".gitignore",
    ".neuro.toml",
    "HELP.md",
    "README.md",
    "Dockerfile",
    "apt.txt",
    "requirements.txt",
    "setup.cfg",
}
MAKEFILE = {
    "code/train.py",
    "data/.gitkeep",
    "data/iris.csv",
    "notebooks/explore.ipynb",
    "requirements/apt.txt",
    "requirements/pip.txt",
    ".gitignore",
    "Makefile",
    "README.md",
    "setup.cfg",
}


def answering(home: Home, lines: str, *words: str) -> subprocess.CompletedProcess[str]:
    """``neuro project init`` with these lines typed."""
    return commands.run(
        "neuro.cli",
        ["project", "init", *words],
        environment=home.environment(),
        folder=home.work_dir,
        stdin=lines,
        seconds=PATIENCE,
    )


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def test_a_terminal_shows_the_questions_and_takes_the_defaults(home: Home) -> None:
    with home.terminal("project", "init") as terminal:
        terminal.until("project_name [Name of the project]: ")
        terminal.press("Neuro Tutorial\n")
        terminal.until("project_slug [neuro-tutorial]: ")
        terminal.press("\n")
        terminal.until("code_directory [modules]: ")
        terminal.press("\n")
        terminal.until("neuro-flow run train")
        assert terminal.end() == 0

    assert files_of(home.work_dir / "neuro-tutorial") == FLOW


def test_the_folder_has_what_the_documentation_lists(home: Home) -> None:
    home.ok("project", "init", "Neuro Tutorial", "--no-input")

    assert set(os.listdir(home.work_dir / "neuro-tutorial")) == {
        *(".neuro", "config", "data", "notebooks", "modules", "results", ".gitignore"),
        *(".neuro.toml", "HELP.md", "README.md", "Dockerfile", "apt.txt", "requirements.txt"),
        "setup.cfg",
    }


def test_answers_come_from_standard_input(home: Home) -> None:
    done = answering(home, "Neuro Tutorial\n\nnets\n")

    assert done.returncode == 0
    assert done.stdout.startswith(
        "project_name [Name of the project]: project_slug [neuro-tutorial]: "
        "code_directory [modules]: "
    )
    made = home.work_dir / "neuro-tutorial"
    assert files_of(made) == {name.replace("modules/", "nets/") for name in FLOW}
    assert "/project/nets" in (made / ".neuro" / "live.yml").read_text()
    assert "modules" not in (made / ".neuro" / "live.yml").read_text()


def test_the_makefile_template_asks_for_no_code_directory(home: Home) -> None:
    done = answering(home, "\n\n", "Digits", "--template", "makefile")

    assert done.stdout.startswith("project_name [Digits]: project_slug [digits]: \nMade digits.")
    assert files_of(home.work_dir / "digits") == MAKEFILE


def test_what_is_given_is_not_asked_for(home: Home) -> None:
    done = answering(home, "\n", "project_name=My own", "project_slug=own")

    assert done.stdout.startswith("code_directory [modules]: \nMade own.")
    assert (home.work_dir / "own" / "README.md").read_text().startswith("# My own\n")


def test_a_bad_answer_is_asked_for_again(home: Home) -> None:
    done = answering(home, "Digits\nMy Digits\n2nd\ndigits\nclass\ndata\nnets\n")

    assert done.returncode == 0
    assert [re.split(" cannot | is ", line)[0] for line in done.stderr.splitlines()] == [
        "ERROR: 'My Digits'",
        "ERROR: '2nd'",
        "ERROR: 'class'",
        "ERROR: 'data'",
    ]
    assert (home.work_dir / "digits" / "nets" / "train.py").is_file()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["project_slug=No"], 127, "lower-case letters"),
        (["code_directory=results"], 127, "another folder of the project"),
        (["project_name="], 127, "one line of text"),
        (["name=x"], 2, "known are project_name, project_slug, code_directory"),
        (["Digits", "too"], 2, "one word too many"),
        (["--template", "makefile", "project_slug=" + "a" * 29], 127, "longer than 28"),
        (["--template", "makefile", "code_directory=nets"], 2, "There is no 'code_directory'"),
        (["--template", "none"], 2, "'none'"),
    ],
)
def test_a_bad_word_makes_nothing(home: Home, words: list[str], code: int, sentence: str) -> None:
    done = home.run("project", "init", "--no-input", *words)

    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert os.listdir(home.work_dir) == []


def test_a_folder_that_is_there_stays_as_it_is(home: Home) -> None:
    (home.work_dir / "digits").mkdir()
    (home.work_dir / "digits" / "mine").write_text("kept")

    done = answering(home, "Digits\n\n\n")

    assert done.returncode != 0
    assert "digits exists already" in done.stderr
    assert content_of(home.work_dir) == {"digits/mine": b"kept"}


def test_the_end_of_input_makes_nothing(home: Home) -> None:
    assert answering(home, "Digits\n").returncode == 130
    assert os.listdir(home.work_dir) == []


def test_ctrl_c_makes_nothing(home: Home) -> None:
    with home.terminal("project", "init") as terminal:
        terminal.until("project_name [Name of the project]: ")
        assert terminal.end_by("\x03") == 130

    assert os.listdir(home.work_dir) == []


def test_a_template_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "template" / "{{cookiecutter.project_slug}}"
    root.mkdir(parents=True)
    (root / "a").write_text("good")
    (root / "b").write_text("{{ cookiecutter.unknown }}")
    place = tmp_path / "place"
    place.mkdir()

    with pytest.raises(ValueError, match=r"cookiecutter\.unknown"):
        make_project(tmp_path / "template", {"project_slug": "x"}, place)

    assert os.listdir(place) == []


@pytest.mark.parametrize(
    "text", ["{% if x %}", "{# no #}", "{{ cookiecutter.a | upper }}", "{{ a }}"]
)
def test_only_simple_substitutions_are_a_template(text: str) -> None:
    with pytest.raises(ValueError, match="nothing else"):
        substitute(text, {"a": "b"})


def test_a_value_is_not_read_as_a_template() -> None:
    assert substitute("{{cookiecutter.a}}", {"a": "{{ cookiecutter.b }}"}) == "{{ cookiecutter.b }}"


@pytest.mark.parametrize(
    "name", ["Neuro Tutorial", "Größe_2", "2nd try", "Цифры", "-", "C++ / Rust"]
)
def test_the_slug_that_is_offered_is_always_good(name: str) -> None:
    assert complaint("flow", "project_slug", slug_of(name)) is None


def test_a_name_in_cyrillic_is_spelled_in_latin_letters() -> None:
    assert slug_of("Распознавание цифр, этап 2") == "raspoznavanie-tsifr-etap-2"
    assert slug_of("Модель") == "model"


def test_elsewhere(home: Home) -> None:
    (home.work_dir / "projects").mkdir()

    out = home.ok("project", "init", "Digits", "--no-input", "--output-dir", "projects")

    assert "cd projects/digits" in out
    assert files_of(home.work_dir / "projects" / "digits") == FLOW


def test_git_keeps_all_but_data_results_and_tokens(home: Home) -> None:
    home.ok("project", "init", "Digits", "--no-input")
    made = home.work_dir / "digits"
    (made / "config" / "key.json").write_text("secret")
    (made / "results" / "model.npz").write_text("large")

    subprocess.run(["git", "init", "-q", str(made)], check=True)
    subprocess.run(["git", "-C", str(made), "add", "-A"], check=True)
    kept = subprocess.run(
        ["git", "-C", str(made), "ls-files"], check=True, capture_output=True, text=True
    ).stdout

    assert set(kept.split()) == FLOW - {"data/iris.csv"}


def test_training_runs_here_as_it_is(home: Home) -> None:
    home.ok("project", "init", "Digits", "--no-input")
    made = home.work_dir / "digits"

    done = subprocess.run(
        [sys.executable, str(made / "modules" / "train.py"), "--epochs", "60"],
        cwd=home.work_dir,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "epoch 60/60: loss " in done.stdout
    metrics = json.loads((made / "results" / "metrics.json").read_text())
    assert metrics["epochs"] == 60
    assert metrics["train_accuracy"] > 0.9
    assert len((made / "results" / "log.csv").read_text().splitlines()) == 61
    assert (made / "results" / "model.npz").is_file()


def test_the_notebook_runs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.ok("project", "init", "Digits", "--no-input")
    notebook = home.work_dir / "digits" / "notebooks" / "explore.ipynb"
    monkeypatch.chdir(notebook.parent)
    cells = json.loads(notebook.read_text())["cells"]
    names: dict[str, object] = {}

    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)

    picture = eval("Scatter(features[:, 2], features[:, 3], species)._repr_svg_()", names)
    assert picture.count("<circle") == 150


def test_the_files_of_settings_are_read(home: Home) -> None:
    home.ok("project", "init", "Digits", "--no-input")
    made = home.work_dir / "digits"
    linters = configparser.ConfigParser()
    linters.read(made / "setup.cfg")

    assert linters.sections() == ["flake8", "isort", "mypy"]
    assert ".git/" in load(home.config_dir, made).cp_exclude


def test_both_templates_have_the_same_example() -> None:
    flow = TEMPLATES / "flow" / "{{cookiecutter.project_slug}}"
    makefile = TEMPLATES / "makefile" / "{{cookiecutter.project_slug}}"

    for ours, theirs in (
        ("{{cookiecutter.code_directory}}/train.py", "code/train.py"),
        ("data/iris.csv", "data/iris.csv"),
        ("notebooks/explore.ipynb", "notebooks/explore.ipynb"),
        ("setup.cfg", "setup.cfg"),
    ):
        assert (flow / ours).read_bytes() == (makefile / theirs).read_bytes()


def test_the_wheel_has_every_file_of_the_templates(tmp_path: Path) -> None:
    kept = subprocess.run(
        ["git", "-C", str(TEMPLATES), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout.split("\0")

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=TEMPLATES.parents[2],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")

    assert {f"neuro/templates/{name}" for name in kept if name} <= set(ZipFile(wheel).namelist())


@pytest.mark.parametrize("template", ["flow", "makefile"])
def test_the_commands_that_a_project_tells_of_exist(home: Home, template: str) -> None:
    home.ok("project", "init", "Digits", "--no-input", "--template", template)

    for page in (home.work_dir / "digits").rglob("*.md"):
        for line in re.findall(r"(?:^|`)(neuro [^`\n#]+)", page.read_text(), re.MULTILINE):
            if line.split()[1] not in NOT_EVERYWHERE:
                resolve(line.strip())
